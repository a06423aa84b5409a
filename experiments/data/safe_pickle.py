"""Reading a pickle that holds only data, since one from elsewhere could run any program.

NumPy's own functions are not called either: they trust the state that a pickle gives an array or a
dtype, and can crash the process.
"""

import codecs
import pickle

from experiments.config.errors import DataError

import numpy


class _Dtype:
    """Takes the place of a dtype while a pickle is read."""

    def __init__(self, code, *_):
        self.dtype = numpy.dtype(code)
        if self.dtype.kind not in 'biuf':
            raise pickle.UnpicklingError(f'it holds an array of {self.dtype}')

    def __setstate__(self, state):
        order = state[1]
        self.dtype = self.dtype.newbyteorder(order.decode() if isinstance(order, bytes) else order)


class _Array:
    """Takes the place of an array while a pickle is read."""

    def __init__(self, *_):
        self.value = None

    def __setstate__(self, state):
        _, shape, dtype, is_fortran, content = state
        self.value = _array(content, dtype, shape, 'F' if is_fortran else 'C')


def _array(content, dtype, shape, order='C', *_):
    if isinstance(content, str):  # of protocol 0
        content = content.encode('latin1')
    return numpy.frombuffer(content, dtype.dtype).reshape(shape, order=order).copy()


def _scalar(dtype, content):
    return _array(content, dtype, ())[()]


def _bytes_of(text, encoding):
    # How Python 3 writes bytes in a pickle that Python 2 is to read.
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'it holds text encoded as {encoding}')
    return codecs.encode(text, encoding)


_ALLOWED = {
    ('_codecs', 'encode'): _bytes_of,
    ('__builtin__', 'bytes'): bytes,  # of Python 2: how none at all are written
    ('numpy', 'ndarray'): None,
    ('numpy', 'dtype'): _Dtype,
}
for _core in ('numpy.core', 'numpy._core'):  # NumPy 1 and 2
    _ALLOWED[f'{_core}.multiarray', '_reconstruct'] = _Array
    _ALLOWED[f'{_core}.multiarray', 'scalar'] = _scalar
    _ALLOWED[f'{_core}.numeric', '_frombuffer'] = _array


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}')
        return _ALLOWED[module, name]


def read(path, layout):
    """Reads a pickled value of NumPy arrays of numbers, dicts, lists, numbers, bytes and strings.

    The file was written by Python 2 (whose strings become bytes) or 3; ``layout`` says in the error
    what it must be.

    Raises:
        DataError: If it cannot be read, is damaged, or asks for anything else.
    """
    try:
        with open(path, 'rb') as file:
            return _plain(_Unpickler(file, encoding='bytes').load())
    except OSError as error:
        raise DataError(f'{path}: {error.strerror}; it must be {layout}') from None
    # What a damaged pickle raises is whatever the wrong instruction does.
    except Exception as error:
        raise DataError(
            f'{path}: damaged, or not plain data ({type(error).__name__}: {error});'
            f' it must be {layout}'
        ) from None


def _plain(value):
    """Puts the arrays back into the value that was read."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return value
