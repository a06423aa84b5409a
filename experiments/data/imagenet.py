"""ImageNet (ILSVRC), a folder of images for each class."""

import os

from experiments.data import imagenet_labels, images, layout, subset
from experiments.data.augmentation import imagenet as augmentation
from experiments.data.augmentation.normalization import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Normalization,
)
from experiments.data.augmented import Augmented
from experiments.data.data import Data
from experiments.data.labelled_images import LabelledImages
from experiments.data.stand_ins import StandIns
from experiments.errors import DataError

import numpy
from chainer.datasets import TransformDataset

_LAYOUT = (
    'a folder with train/<wnid>/*.JPEG, and val/<wnid>/*.JPEG or val/*.JPEG with a label file'
    ' (val_labels)'
)


def load(section, dtype):
    """Lists the images; each is read when its turn comes.

    Classes are numbered in the order of the names of the folders of ``train``, as is usual.

    Args:
        section: The config: ``folder``; ``train`` and ``val``, the names of the two folders in it
            (usually just so); ``val_labels``, the label file of a flat ``val``, and
            ``ilsvrc_classes``, which the official label file needs (see
            ``experiments.data.imagenet_labels``), both relative to ``folder``, or ``None``;
            ``size``, the side of the crops (224 usually); ``train_size`` and ``test_size`` (the
            first of each class, so many in all; ``None`` is all); ``augment`` (else the middle
            is cropped in training too); ``skip_damaged``.
        dtype (numpy.dtype): Of the images.

    Returns:
        experiments.data.Data: The data; images are of shape (3, size, size).

    Raises:
        DataError: If the folder is not laid out as it must be, or has fewer images than asked for.
    """
    folder = layout.top(section.folder, _LAYOUT)
    train = layout.top(os.path.join(folder, section.train), _LAYOUT)
    wnids = sorted(_subfolders(train))
    if not wnids:
        raise DataError(f'{train}: given no folder in it, allowed: {_LAYOUT}')
    files = _in_class_folders(train, wnids)
    val = layout.top(os.path.join(folder, section.val), _LAYOUT)
    val_files = _validation(folder, val, section, wnids)
    normalization = Normalization(IMAGENET_MEAN, IMAGENET_STD, dtype)
    testing = augmentation.Test(section.size, normalization)
    examples = _examples(*files, section.train_size, train, section.skip_damaged)
    if section.augment:
        training = augmentation.Training(section.size, normalization)
        examples = Augmented(examples, training)
    else:
        examples = TransformDataset(examples, testing)
    return Data(
        train=examples,
        test=TransformDataset(
            _examples(*val_files, section.test_size, val, section.skip_damaged), testing
        ),
        shape=(3, section.size, section.size),
        classes=len(wnids),
        class_names=tuple(wnids),
        mean=IMAGENET_MEAN,
    )


def _examples(paths, classes, size, where, skip_damaged):
    chosen = subset.first_of_each_class(classes, size, where)
    examples = LabelledImages([paths[i] for i in chosen], classes[chosen])
    return StandIns(examples) if skip_damaged else examples


def _subfolders(folder):
    return [e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith('.')]


def _image_names(folder):
    return sorted(name for name in os.listdir(folder) if name.lower().endswith(images.EXTENSIONS))


def _in_class_folders(folder, wnids):
    """Returns the paths of all images, a list, and their classes, an array."""
    paths, classes = [], []
    for label, wnid in enumerate(wnids):
        below = os.path.join(folder, wnid)
        names = _image_names(below)
        if not names:
            raise DataError(
                f'{below}: given no image, allowed: at least one that ends in'
                f' {", ".join(images.EXTENSIONS)}'
            )
        paths += [os.path.join(below, name) for name in names]
        classes += [label] * len(names)
    return paths, numpy.array(classes, numpy.int32)


def _validation(folder, val, section, wnids):
    found = _subfolders(val)
    if found:
        unknown = sorted(set(found) - set(wnids))
        if unknown:
            raise DataError(
                f'{os.path.join(val, unknown[0])}: given a class that {section.train} has not,'
                f' allowed: its {len(wnids)} folders ({wnids[0]} ...)'
            )
        paths, classes = _in_class_folders(val, sorted(found))
        of_found = numpy.array([wnids.index(wnid) for wnid in sorted(found)], numpy.int32)
        return paths, of_found[classes]
    names = _image_names(val)
    if not names:
        raise DataError(f'{val}: given no image, allowed: {_LAYOUT}')
    if section.val_labels is None:
        raise DataError(f'{val}: given images without classes, allowed: {_LAYOUT}')
    labels = os.path.join(folder, section.val_labels)
    order = section.ilsvrc_classes and os.path.join(folder, section.ilsvrc_classes)
    names, classes = imagenet_labels.read(labels, names, wnids, order)
    return [os.path.join(val, name) for name in names], classes
