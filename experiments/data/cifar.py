"""CIFAR-10 and CIFAR-100 (Krizhevsky), in the official batches for Python."""

import functools
import os
import reprlib

from experiments.config.errors import DataError, shortened
from experiments.data import safe_pickle, transforms
from experiments.data.dataset import Data, first_of_each_class, inner_folder
from experiments.data.randomness import Augmented

import numpy
from chainer.datasets import TransformDataset, TupleDataset

_SHAPE = (3, 32, 32)
_BRIGHTEST = 255.0
_PADDING = 4
# By the number of classes: the folder, the files to train with, the one to test with, the one with
# the names of the classes, and the keys of the classes and of their names.
_FILES = {
    10: (
        'cifar-10-batches-py',
        [f'data_batch_{i}' for i in range(1, 6)],
        'test_batch',
        'batches.meta',
        b'labels',
        b'label_names',
    ),
    100: ('cifar-100-python', ['train'], 'test', 'meta', b'fine_labels', b'fine_label_names'),
}


def transform(normalization, augment, example, rng=None):
    """Normalizes an image and, as in He et al. 2016 (section 4.2), pads, crops and flips it.

    ``example`` is a pair of image (uint8) and class. Normalization comes first, so that the padding
    has the mean colour.
    """
    image, label = example
    image = normalization(image)
    if augment:
        image = transforms.pad_and_crop(image, _PADDING, rng)
        if transforms.coin_toss(rng):
            image = transforms.flip(image)
    return numpy.ascontiguousarray(image), label


def load(section, dtype):
    """Loads the images, (3, 32, 32) in the dtype, normalized; those to train with are augmented.

    They are normalized by the images trained with: with ``normalization: channel`` by mean and
    standard deviation of each channel; with ``pixel`` the mean image is subtracted, and pixels are
    divided by 255 (He et al. 2016). See :func:`experiments.data.load`.
    """
    name, train_files, test_file, names_file, key, names_key = _FILES[section.classes]
    wanted = f'a folder {name} with {", ".join(train_files)} and {test_file}, or the one it is in'
    folder = inner_folder(section.folder, name, wanted)

    def read(files, size):
        paths = [os.path.join(folder, file) for file in files]
        parts = [_batch(path, key, section.classes, wanted) for path in paths]
        images, classes = (numpy.concatenate(arrays) for arrays in zip(*parts))
        chosen = first_of_each_class(classes, size, folder)
        return images[chosen], classes[chosen]

    images, classes = read(train_files, section.train_size)
    mean, std = _statistics(images, section.normalization)
    normalization = transforms.Normalization(mean, std, dtype)
    train = TupleDataset(images, classes)
    test = TupleDataset(*read([test_file], section.test_size))
    return Data(
        train=Augmented(train, functools.partial(transform, normalization, section.augment)),
        test=TransformDataset(test, functools.partial(transform, normalization, False)),
        shape=_SHAPE,
        classes=section.classes,
        class_names=_class_names(os.path.join(folder, names_file), names_key, section.classes),
        mean=mean,
    )


def _statistics(images, kind):
    """Returns mean and standard deviation, in units of pixels, as :class:`Normalization` wants."""
    if kind == 'pixel':
        return images.mean(axis=0, dtype=numpy.float64).astype(numpy.float32), (_BRIGHTEST,) * 3
    channels = images.transpose(1, 0, 2, 3)
    counts = [numpy.bincount(channel.ravel(), minlength=256) for channel in channels]
    return transforms.pixel_statistics(numpy.array(counts))


def _batch(path, key, classes, wanted):
    content = safe_pickle.read(path, f'a pickled batch of CIFAR; allowed: {wanted}')
    rows, labels = content.get(b'data'), content.get(key)
    if not isinstance(rows, numpy.ndarray) or rows.dtype != numpy.uint8 or rows.ndim != 2:
        raise DataError(f'{path}: given no array of bytes under data, allowed: {wanted}')
    if rows.shape[1] != 3072 or not len(rows):
        raise DataError(f'{path}: given data of shape {rows.shape}, allowed: (n, 3072)')
    if not isinstance(labels, (list, tuple, numpy.ndarray)) or len(labels) != len(rows):
        raise DataError(
            f'{path}: given no {len(rows)} classes under {key.decode()}, allowed: one an image'
        )
    wrong = [k for k in labels if not isinstance(k, (int, numpy.integer)) or not 0 <= k < classes]
    if wrong:
        given = shortened(reprlib.repr(wrong[0]))
        raise DataError(f'{path}: given class {given}, allowed: 0 to {classes - 1}')
    return rows.reshape(-1, *_SHAPE), numpy.array(labels, numpy.int32)


def _class_names(path, key, classes):
    """Reads the names; the data set can be used without the file."""
    if not os.path.exists(path):
        return None
    names = safe_pickle.read(path, 'the pickled names of the classes').get(key)
    if not isinstance(names, list) or [type(n) in (bytes, str) for n in names] != [True] * classes:
        raise DataError(f'{path}: given no {classes} names under {key.decode()}')
    return tuple(n.decode('utf-8', 'replace') if isinstance(n, bytes) else n for n in names)
