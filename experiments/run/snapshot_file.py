"""The file of a snapshot: arrays by key, in NumPy's npz format, and nothing pickled.

A pickle of someone else's could run any program. Chainer gives ``None`` as an array of an object,
which NumPy pickles; here it is four bytes that stand for it. Older snapshots hold the pickled
``None``, which is told from all other pickles by its bytes.
"""

import io
import os
import zipfile

from experiments.config.errors import RunError

import numpy
from numpy.lib import format as npy

_NONE = numpy.array(b'None', 'V4')
_PICKLED_NONES = (
    # NumPy 1's
    b'\x80\x03cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02C\x01b'
    b'q\x03\x87q\x04Rq\x05(K\x01)cnumpy\ndtype\nq\x06X\x02\x00\x00\x00O8q\x07\x89\x88\x87q\x08Rq\t('
    b'K\x03X\x01\x00\x00\x00|q\nNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tq\x0bb\x89]q\x0cNatq\rb.',
    # NumPy 2's
    b'\x80\x04\x95\x87\x00\x00\x00\x00\x00\x00\x00\x8c\x16numpy._core.multiarray\x94\x8c\x0c_recons'
    b'truct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R'
    b'\x94(K\x01)h\x03\x8c\x05dtype\x94\x93\x94\x8c\x02O8\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|'
    b'\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?t\x94b\x89]\x94Nat\x94b.',
)
# The record at the end of a zip file, before a comment of 64 kB at most: how many files it holds
# stands at 10, in two bytes, and is no more than that says.
_END, _END_SIZE, _MOST = b'PK\x05\x06', 22, 0xFFFF


def content(arrays):
    """Returns the bytes of a file that holds arrays, given as :func:`read` returns them.

    Raises:
        RunError: If one holds objects other than ``None``.
    """
    plain = {}
    for key, array in arrays.items():
        array = numpy.asarray(array)
        if array.dtype.hasobject:
            if not _is_none(array):
                raise RunError(f'{key}: given Python objects, allowed: numbers, text and None')
            array = _NONE
        plain[key] = array
    file = io.BytesIO()
    numpy.savez(file, **plain)
    return file.getvalue()


def read(path):
    """Returns the arrays of a file, a dict by key; ``None`` is an array of it, as with Chainer.

    Raises:
        RunError: If one could be read only by running what it says.
    """
    with zipfile.ZipFile(path) as archive:
        return {
            name.removesuffix('.npy'): _array(archive, name, path) for name in archive.namelist()
        }


def is_intact(path):
    """Returns whether a file is there, has all arrays that it says it has, and each is whole."""
    try:
        with open(path, 'rb') as file, zipfile.ZipFile(file) as archive:
            found = min(len(set(archive.namelist())), _MOST)
            return archive.testzip() is None and found == _count(file)
    except Exception:  # of a damaged zip file Python raises nearly anything
        return False


def _count(file):
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _MOST - _END_SIZE))
    end = file.read()
    at = end.rindex(_END) + 10
    return int.from_bytes(end[at : at + 2], 'little')


def _array(archive, name, path):
    try:
        with archive.open(name) as file:
            array = npy.read_array(file, allow_pickle=False)
    except ValueError as error:
        if not _is_pickled_none(archive, name):
            raise RunError(
                f'{path}: {name.removesuffix(".npy")} is not read, since only plain arrays are'
                f' ({error}); --fresh starts over'
            ) from None
        array = _NONE
    return numpy.array(None) if array.dtype == _NONE.dtype and array == _NONE else array


def _is_pickled_none(archive, name):
    try:
        with archive.open(name) as file:
            is_known = npy.read_magic(file) == (1, 0)
            npy.read_array_header_1_0(file)
            return is_known and file.read(max(map(len, _PICKLED_NONES)) + 1) in _PICKLED_NONES
    except ValueError:
        return False


def _is_none(array):
    return array.shape == () and array[()] is None
