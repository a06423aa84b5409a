"""Reading a pickle that holds only data: a pickle from elsewhere could run any program."""

import codecs
import pickle

from experiments.errors import DataError

import numpy


def _bytes_of(text, encoding):
    # How Python 3 writes bytes in a pickle that Python 2 is to read.
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'it holds text encoded as {encoding}')
    return codecs.encode(text, encoding)


# By the names that NumPy 1 and 2 write; the functions have moved, so they are taken from a value.
_rebuilt_array = numpy.empty(0).__reduce__()[0]
_rebuilt_scalar = numpy.float32().__reduce__()[0]
_HARMLESS = {
    ('_codecs', 'encode'): _bytes_of,
    ('numpy', 'ndarray'): numpy.ndarray,
    ('numpy', 'dtype'): numpy.dtype,
    **{
        (f'numpy.{core}.multiarray', name): function
        for core in ('core', '_core')
        for name, function in (('_reconstruct', _rebuilt_array), ('scalar', _rebuilt_scalar))
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}')
        return _HARMLESS[module, name]


def read(path, layout):
    """Reads a pickled value of NumPy arrays, dicts, lists, numbers, bytes and strings.

    Args:
        path (str): The file, written by Python 2 (whose strings become bytes) or 3.
        layout (str): What the file must be, for the error.

    Returns:
        The value.

    Raises:
        DataError: If it cannot be read, is damaged, or asks for anything else.
    """
    try:
        with open(path, 'rb') as file:
            return _Unpickler(file, encoding='bytes').load()
    except OSError as error:
        raise DataError(f'{path}: {error.strerror}; it must be {layout}') from None
    # What a damaged pickle raises is whatever the wrong instruction does.
    except Exception as error:
        raise DataError(
            f'{path}: damaged, or not plain data ({type(error).__name__}: {error});'
            f' it must be {layout}'
        ) from None
