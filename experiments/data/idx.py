"""The idx format of MNIST's files, gzipped or not.

Two zero bytes, the type (8: unsigned bytes), the number of dimensions; each dimension as a 4-byte
big-endian integer; then the values, the last dimension fastest.
"""

import gzip
import math
import os
import zlib

from experiments.errors import DataError

import numpy

_UNSIGNED_BYTES = 8


def read(path, dimensions):
    """Reads an array of unsigned bytes.

    Args:
        path (str): The file without ``.gz``; if it is not there, the one with ``.gz`` is read.
        dimensions (int): How many it must have.

    Returns:
        numpy.ndarray: The array, uint8.

    Raises:
        DataError: If there is neither file, or it is damaged or not such an array.
    """
    zipped = not os.path.exists(path)
    path = f'{path}.gz' if zipped else path
    try:
        with gzip.open(path) if zipped else open(path, 'rb') as file:
            content = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f'{path}: damaged gzip file ({error})') from None
    except OSError as error:
        either = f'{path[:-3]} or {path}' if zipped else path
        raise DataError(f'{either}: {error.strerror}; it must be an idx file') from None
    return _parsed(content, dimensions, path)


def _parsed(content, dimensions, path):
    magic = bytes([0, 0, _UNSIGNED_BYTES, dimensions])
    if content[:4] != magic:
        raise DataError(
            f'{path}: given the first bytes {content[:4].hex(" ") or "(none)"}, allowed:'
            f' {magic.hex(" ")}, an idx file of unsigned bytes in {dimensions} dimensions'
        )
    begin = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(content[i : i + 4], 'big') for i in range(4, begin, 4))
    size = begin + math.prod(shape)
    if len(content) != size:
        raise DataError(
            f'{path}: given {len(content)} bytes, allowed: {size}, which its header asks for'
            f' ({" x ".join(map(str, shape))} values); the file is cut off or damaged'
        )
    return numpy.frombuffer(content, numpy.uint8, offset=begin).reshape(shape)
