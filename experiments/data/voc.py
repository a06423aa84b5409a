"""PASCAL VOC's detection data, or other data in its layout."""

import os

from experiments.data import layout, subset, voc_annotation
from experiments.data.augmentation import ssd
from experiments.data.augmentation.normalization import Normalization
from experiments.data.augmented import Augmented
from experiments.data.data import Data
from experiments.data.labelled_images import LabelledImages
from experiments.data.stand_ins import StandIns
from experiments.errors import DataError

import numpy
from chainer.datasets import TransformDataset

_LAYOUT = (
    'a folder VOCdevkit, or the one it is in, with VOC2007/JPEGImages/*.jpg,'
    ' VOC2007/Annotations/*.xml and VOC2007/ImageSets/Main/<split>.txt'
)


def load(section, dtype):
    """Reads the annotations; each image is read when its turn comes.

    Args:
        section: The config: ``folder``; ``train`` and ``test``, each a list of splits such as
            ``VOC2007/trainval``, which are joined; ``size``, the side of SSD's input (300 or 512);
            ``class_names``, a list, or ``None`` for all names found, in alphabetical order (which
            is VOC's own); ``difficult``, whether objects marked so are trained with (they are
            always in the test examples); ``train_size`` and ``test_size`` (the first images, in
            the order of the lists; ``None`` is all); ``eleven_point``, the average precision of VOC
            2007; ``augment``; ``skip_damaged``.
        dtype (numpy.dtype): What the network computes in; images are float32 whatever it is.

    Returns:
        experiments.data.Data: The data; images are of shape (3, size, size), their pixels 0 to
        255. The network itself subtracts the mean colour, as its pretrained weights want it.

    Raises:
        DataError: If a file is missing, an annotation is damaged, or an object is of no class.
    """
    folder = layout.inner(section.folder, 'VOCdevkit', _LAYOUT)
    train = _annotated(folder, section.train, section.train_size)
    test = _annotated(folder, section.test, section.test_size)
    names = section.class_names or sorted(
        {name for _, _, annotation in train + test for name in annotation.names}
    )
    if not names:
        raise DataError(f'{folder}: given no object in any annotation, allowed: at least one')
    normalization = Normalization((0, 0, 0), (1, 1, 1), numpy.float32)
    plain = ssd.Plain(section.size, normalization)
    training = ssd.Training(section.size, normalization) if section.augment else plain
    return Data(
        train=Augmented(_to_train(train, names, section), training),
        test=TransformDataset(_to_test(test, names, section), plain),
        shape=(3, section.size, section.size),
        classes=len(names),
        class_names=tuple(names),
        eleven_point=section.eleven_point,
    )


def _annotated(folder, splits, size):
    """Returns a list of (image file, annotation file, annotation)."""
    files = [file for split in splits for file in _files(folder, split)]
    chosen = subset.first(len(files), size, f'{folder}: {", ".join(splits)}')
    return [(*files[i], voc_annotation.read(files[i][1])) for i in chosen]


def _files(folder, split):
    """Yields the image and the annotation file of each example of a split."""
    year, slash, name = split.rpartition('/')
    if not slash:
        raise DataError(f'{folder}: given the split {split}, allowed: such as VOC2007/trainval')
    year = os.path.join(folder, year)
    there = set(os.listdir(layout.top(os.path.join(year, 'JPEGImages'), _LAYOUT)))
    listing = os.path.join(year, 'ImageSets', 'Main', f'{name}.txt')
    for line, words in layout.lines(listing, 'a list of image names, one a line'):
        if len(words) != 1:
            raise DataError(f'{listing}, line {line}: given {len(words)} words, allowed: one name')
        image = os.path.join(year, 'JPEGImages', f'{words[0]}.jpg')
        if f'{words[0]}.jpg' not in there:
            raise DataError(f'{image}: missing, though {listing}, line {line} names it')
        yield image, os.path.join(year, 'Annotations', f'{words[0]}.xml')


def _to_train(annotated, names, section):
    """Returns the data set of image, boxes and classes."""
    boxes, labels = [], []
    for _, path, annotation in annotated:
        used = ~annotation.difficult | section.difficult
        boxes.append(annotation.boxes[used])
        labels.append(_labels(annotation, names, path)[used])
    return _read_on_demand(annotated, section, boxes, labels)


def _to_test(annotated, names, section):
    """Returns the data set of image, boxes, classes and whether each is difficult."""
    boxes = [annotation.boxes for _, _, annotation in annotated]
    labels = [_labels(annotation, names, path) for _, path, annotation in annotated]
    difficult = [annotation.difficult for _, _, annotation in annotated]
    return _read_on_demand(annotated, section, boxes, labels, difficult)


def _read_on_demand(annotated, section, *labels):
    examples = LabelledImages([image for image, _, _ in annotated], *labels)
    return StandIns(examples) if section.skip_damaged else examples


def _labels(annotation, names, path):
    unknown = [name for name in annotation.names if name not in names]
    if unknown:
        raise DataError(f'{path}: given class {unknown[0]}, allowed: {", ".join(names)}')
    return numpy.array([names.index(name) for name in annotation.names], numpy.int32)
