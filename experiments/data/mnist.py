"""MNIST (LeCun, Cortes, Burges), or another data set in its four idx files."""

import os

from experiments.data import idx, layout, subset
from experiments.data.data import Data
from experiments.data.scaled_pixels import ScaledPixels
from experiments.errors import DataError

import numpy

_CLASSES = 10
_LAYOUT = (
    'a folder with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte'
    ' and t10k-labels-idx1-ubyte, each gzipped (.gz) or not'
)


def load(section, dtype):
    """Loads the digits, as grey images of shape (1, 28, 28) with pixels in [0, 1].

    Args:
        section: The config: ``folder``, ``train_size`` and ``test_size`` (the first examples of
            each class, so many in all; ``None`` is all).
        dtype (numpy.dtype): Of the images.

    Returns:
        experiments.data.Data: The data.

    Raises:
        DataError: If a file is missing or damaged, or has fewer examples than asked for.
    """
    folder = layout.top(section.folder, _LAYOUT)
    train = _read(folder, 'train', section.train_size)
    test = _read(folder, 't10k', section.test_size)
    shape = train[0].shape[1:]
    if test[0].shape[1:] != shape:
        raise DataError(
            f'{folder}: given test images of shape {test[0].shape[2:]}, allowed: {shape[1:]},'
            ' the shape of the training images'
        )
    return Data(
        train=ScaledPixels(*train, dtype),
        test=ScaledPixels(*test, dtype),
        shape=shape,
        classes=_CLASSES,
    )


def _read(folder, part, size):
    path = os.path.join(folder, f'{part}-images-idx3-ubyte')
    images = idx.read(path, dimensions=3)
    of_classes = os.path.join(folder, f'{part}-labels-idx1-ubyte')
    classes = idx.read(of_classes, dimensions=1)
    if len(images) != len(classes):
        raise DataError(
            f'{of_classes}: given {len(classes)} labels, allowed: {len(images)}, one for each image'
            f' of {part}-images-idx3-ubyte'
        )
    if not len(images):
        raise DataError(f'{path}: given no image, allowed: at least one')
    if classes.max() >= _CLASSES:
        raise DataError(f'{of_classes}: given label {classes.max()}, allowed: 0 to {_CLASSES - 1}')
    chosen = subset.first_of_each_class(classes, size, path)
    return images[chosen][:, None], classes[chosen].astype(numpy.int32)
