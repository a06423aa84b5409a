"""Reading a pickle that holds only data, since one from elsewhere could run any program.

NumPy's own functions are not called either: they trust the state that a pickle gives an array or a
dtype, and can crash the process. Before an instruction is followed all are looked at: time and
memory stay in proportion to the file.
"""

import codecs
import io
import pickle
import pickletools

from experiments.config import bounded_file
from experiments.config.errors import DataError, shortened

import numpy

_MOST_BYTES = 2**28  # CIFAR-100 has 148 MiB
_MOST_INSTRUCTIONS = 10**6  # CIFAR-100 has 200 thousand; each may make an object of a hundred bytes
_MOST_TUPLES = 1000  # besides arguments; of others it takes long to look up those of one hash
# What no pickle of plain data needs. To use a tuple twice is to make one of 2^n items in n steps,
# whose hash takes as long.
_UNUSED = {
    *('DUP', 'POP', 'POP_MARK', 'PERSID', 'BINPERSID', 'EXT1', 'EXT2', 'EXT4', 'INST', 'OBJ'),
    *('NEWOBJ', 'NEWOBJ_EX', 'EMPTY_SET', 'ADDITEMS', 'FROZENSET', 'NEXT_BUFFER'),
}
_MAKE_NO_TUPLE = {'GLOBAL', 'STACK_GLOBAL', 'REDUCE', 'LIST', 'DICT'} | {
    opcode.name
    for opcode in pickletools.opcodes
    if not opcode.stack_before
    and opcode.stack_after not in ([], [pickletools.pytuple], [pickletools.anyobject])
}


class _Dtype:
    """Takes the place of a dtype while a pickle is read."""

    def __init__(self, code, *_):
        if len(code) > 3:  # such as u1, not a list of fields
            raise pickle.UnpicklingError('it holds an array of a dtype with fields')
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
    return numpy.frombuffer(content, dtype.dtype).reshape(shape, order=order)


def _scalar(dtype, content):
    return _array(content, dtype, ())[()]


_ALLOWED = {
    ('__builtin__', 'bytes'): lambda: b'',  # of Python 2: how none at all are written
    ('numpy', 'ndarray'): None,
    ('numpy', 'dtype'): _Dtype,
}
for _core in ('numpy.core', 'numpy._core'):  # NumPy 1 and 2
    _ALLOWED[f'{_core}.multiarray', '_reconstruct'] = _Array
    _ALLOWED[f'{_core}.multiarray', 'scalar'] = _scalar
    _ALLOWED[f'{_core}.numeric', '_frombuffer'] = _array


class _Unpickler(pickle.Unpickler):
    def __init__(self, content):
        super().__init__(io.BytesIO(content), encoding='bytes')
        self._left = len(content)

    def find_class(self, module, name):
        if (module, name) == ('_codecs', 'encode'):
            return self._bytes_of
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}')
        return _ALLOWED[module, name]

    def _bytes_of(self, text, encoding):
        # How Python 3 writes bytes in a pickle that Python 2 is to read; each text once.
        self._left -= len(text)
        if encoding != 'latin1' or self._left < 0:
            raise pickle.UnpicklingError(f'it holds text encoded as {encoding}')
        return codecs.encode(text, encoding)


def read(path, layout):
    """Reads a pickled dict of NumPy arrays of numbers, lists, numbers, bytes and strings.

    The file was written by Python 2 (whose strings become bytes) or 3; ``layout`` says in the error
    what it must be. The arrays cannot be written to.

    Raises:
        DataError: If it cannot be read, is damaged, or asks for anything else.
    """
    try:
        content = bounded_file.read(path, _MOST_BYTES)
        _look_at(content)
        value = _Unpickler(content).load()
        if not isinstance(value, dict):
            raise pickle.UnpicklingError('it holds no dict')
        return {k: item.value if isinstance(item, _Array) else item for k, item in value.items()}
    except OSError as error:
        raise DataError(f'{path}: {error.strerror}; it must be {layout}') from None
    # What a damaged pickle raises is whatever the wrong instruction does.
    except Exception as error:
        reason = shortened(f'{type(error).__name__}: {error}')
        raise DataError(
            f'{path}: damaged, or not plain data ({reason}); it must be {layout}'
        ) from None


def _look_at(content):
    """Raises an error if following a pickle's instructions takes more than its size lets expect."""
    tuples, loose, puts, top = set(), 0, 0, ''
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        name = opcode.name
        if name in _UNUSED:
            raise pickle.UnpicklingError(f'it has the instruction {name}')
        if count >= _MOST_INSTRUCTIONS:
            raise pickle.UnpicklingError(f'it has more than {_MOST_INSTRUCTIONS} instructions')
        if isinstance(argument, int) and not -(2**63) <= argument < 2**64:
            raise pickle.UnpicklingError('it holds an integer of more than 64 bits')
        if name == 'MEMOIZE' or name.endswith('PUT'):
            argument = puts if name == 'MEMOIZE' else argument
            puts += 1
            if argument > count:  # the list of what is put would grow to that
                raise pickle.UnpicklingError(f'it puts a value at {argument} of {count}')
            (tuples.discard if top in _MAKE_NO_TUPLE else tuples.add)(argument)
        elif name.endswith('GET') and argument in tuples:
            raise pickle.UnpicklingError('it holds a tuple twice')
        elif name not in ('FRAME', 'PROTO'):
            loose += top.startswith('TUPLE') and name not in ('REDUCE', 'BUILD')
            if loose > _MOST_TUPLES:
                raise pickle.UnpicklingError(f'it holds more than {_MOST_TUPLES} tuples')
            top = name
