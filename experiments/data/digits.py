"""Handwritten digits: scikit-learn's, and MNIST or another data set in its four idx files."""

import functools
import gzip
import math
import os
import zlib

from experiments.config.bounded_file import open_file
from experiments.config.errors import DataError
from experiments.data.dataset import Data, find_folder, first_of_each_class

import numpy
from chainer.datasets import TransformDataset, TupleDataset

_CLASSES = 10
# Of scikit-learn's: a pixel counts the dots, 0 to 16, of a 4x4 block of the scan.
_MOST_DOTS = 16
# The split is part of the data set: no seed of a run changes it.
_SPLIT_SEED = 0
# Of MNIST.
_BRIGHTEST = 255
_UNSIGNED_BYTES = 8  # the type of the values, in the third byte of an idx file
_MOST_BYTES = 2**31  # 2.7 million images of 28x28
_MOST_PACKED = 1032  # bytes that deflate can make of one, at most
_LAYOUT = (
    'a folder with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte'
    ' and t10k-labels-idx1-ubyte, each gzipped (.gz) or not'
)


def load_digits(section, dtype):
    """Loads scikit-learn's 1,797 digits of 8x8 pixels, as vectors of 64 features in [0, 1].

    float16 holds them exactly. The split has each class in proportion. See
    :func:`experiments.data.load`.
    """
    # Here, since scikit-learn takes half a second to import, whatever the data set is.
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    images, classes = datasets.load_digits(return_X_y=True)
    images = (images / _MOST_DOTS).astype(dtype)
    classes = classes.astype(numpy.int32)
    train, test, train_classes, test_classes = train_test_split(
        images, classes, test_size=section.test_size, stratify=classes, random_state=_SPLIT_SEED
    )
    train, test = TupleDataset(train, train_classes), TupleDataset(test, test_classes)
    return Data(train, test, images.shape[1:], _CLASSES)


def load_mnist(section, dtype):
    """Loads MNIST (LeCun, Cortes, Burges): grey images (1, 28, 28) with pixels in [0, 1].

    See :func:`experiments.data.load`.
    """
    folder = find_folder(section.folder, _LAYOUT)
    train = _read(folder, 'train', section.train_size)
    test = _read(folder, 't10k', section.test_size)
    shape = train[0].shape[1:]
    if test[0].shape[1:] != shape:
        raise DataError(
            f'{folder}: given test images of shape {test[0].shape[2:]}, allowed: {shape[1:]},'
            ' the shape of the training images'
        )
    scale = functools.partial(_scale_pixels, dtype)
    train, test = (TransformDataset(TupleDataset(*part), scale) for part in (train, test))
    return Data(train, test, shape, _CLASSES)


def _read(folder, part, size):
    path = os.path.join(folder, f'{part}-images-idx3-ubyte')
    images = _read_idx(path, ndim=3)
    of_classes = os.path.join(folder, f'{part}-labels-idx1-ubyte')
    classes = _read_idx(of_classes, ndim=1)
    if len(images) != len(classes):
        raise DataError(
            f'{of_classes}: given {len(classes)} labels, allowed: {len(images)}, one for each image'
            f' of {part}-images-idx3-ubyte'
        )
    if not len(images):
        raise DataError(f'{path}: given no image, allowed: at least one')
    if classes.max() >= _CLASSES:
        raise DataError(f'{of_classes}: given label {classes.max()}, allowed: 0 to {_CLASSES - 1}')
    chosen = first_of_each_class(classes, size, path)
    return images[chosen][:, None], classes[chosen].astype(numpy.int32)


def _scale_pixels(dtype, example):
    """Divides the bytes of an image by 255 in float32, and rounds them to the dtype once."""
    image, label = example
    return (image.astype(numpy.float32) / _BRIGHTEST).astype(dtype, copy=False), label


def _read_idx(path, ndim):
    """Reads an array of unsigned bytes in MNIST's idx format, gzipped (``path`` and .gz) or not.

    The format: two zero bytes, the type, the number of dimensions; each dimension as a 4-byte
    big-endian integer; then the values. No more is read, or unpacked, than the header asks for.
    """
    zipped = not os.path.exists(path)
    path = f'{path}.gz' if zipped else path
    try:
        with open_file(path) as packed, gzip.open(packed) if zipped else packed as file:
            shape = _read_shape(file, ndim, path)
            size = math.prod(shape)
            most = os.fstat(packed.fileno()).st_size * (_MOST_PACKED if zipped else 1)
            # One more, which reads the gzip file's checksum and would tell that it goes on.
            content = file.read(size + 1) if size <= min(most, _MOST_BYTES) else None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f'{path}: damaged gzip file ({error})') from None
    except OSError as error:
        either = f'{path[:-3]} or {path}' if zipped else path
        raise DataError(f'{either}: {error.strerror}; it must be an idx file') from None
    values = f'{" x ".join(map(str, shape))} values'
    if size > _MOST_BYTES:
        raise DataError(f'{path}: given a header of {values}, allowed: at most {_MOST_BYTES}')
    if content is None or len(content) != size:
        given = 'more' if content and len(content) > size else 'fewer'
        raise DataError(
            f'{path}: given {given} bytes than its header asks for, allowed: {size} ({values});'
            ' the file is damaged'
        )
    return numpy.frombuffer(content, numpy.uint8).reshape(shape)


def _read_shape(file, ndim, path):
    """Reads the header of an idx file."""
    magic = bytes([0, 0, _UNSIGNED_BYTES, ndim])
    header = file.read(4 + 4 * ndim)
    if header[:4] != magic:
        raise DataError(
            f'{path}: given the first bytes {header[:4].hex(" ") or "(none)"}, allowed:'
            f' {magic.hex(" ")}, an idx file of unsigned bytes in {ndim} dimensions'
        )
    if len(header) < 4 + 4 * ndim:
        raise DataError(f'{path}: given {len(header)} bytes, allowed: a header of {4 + 4 * ndim}')
    return tuple(int.from_bytes(header[i : i + 4], 'big') for i in range(4, len(header), 4))
