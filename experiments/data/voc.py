"""PASCAL VOC's detection data, or other data in its layout."""

import dataclasses
import functools
import math
import os
from xml.etree import ElementTree

from experiments.config import bounded_file
from experiments.config.errors import DataError
from experiments.data import transforms
from experiments.data.dataset import Data, find_folder, first_examples, inner_folder, read_lines
from experiments.data.images import ReplaceDamaged, labelled_images
from experiments.data.randomness import Augmented

import numpy
from chainer.datasets import TransformDataset

_LAYOUT = (
    'a folder VOCdevkit, or the one it is in, with VOC2007/JPEGImages/*.jpg,'
    ' VOC2007/Annotations/*.xml and VOC2007/ImageSets/Main/<split>.txt'
)
_SIDES = ('ymin', 'xmin', 'ymax', 'xmax')
_MOST_BYTES = 2**20  # of an annotation: some thousand objects
_OBJECT = 'an object with name and bndbox (xmin, ymin, xmax, ymax)'


def transform(size, normalization, augment, example, rng=None):
    """Resizes an image with its boxes and normalizes it, augmented as SSD is trained with or not.

    The augmentation (Liu et al. 2016, sections 2.2 and 3.6, in the order of the authors' code):
    photometric distortion, expansion on a canvas of the mean colour, constrained crop, resizing
    with a random filter, flip. ``example`` is a Pillow image, boxes and classes; what else it has
    stays without augmentation.
    """
    image, boxes, labels, *others = example
    if not augment:
        image, boxes = transforms.resize(image, boxes, size)
        return (normalization(image), boxes, labels, *others)
    image = transforms.distort(image, rng)
    image, boxes = transforms.expand(image, boxes, transforms.VGG_MEAN, rng)
    image, boxes, kept = transforms.constrained_crop(image, boxes, rng)
    image, boxes = transforms.resize(image, boxes, size, rng)
    image = normalization(image)
    if transforms.coin_toss(rng):
        image = numpy.ascontiguousarray(transforms.flip(image))
        boxes = transforms.flip_boxes(boxes, size)
    return image, boxes, labels[kept]


def load(section, dtype):
    """Reads the annotations; each image, (3, size, size) of pixels 0 to 255, is read at its turn.

    The images are float32 whatever the dtype, and the network subtracts the mean colour itself, as
    its pretrained weights want it. See :func:`experiments.data.load`.
    """
    folder = inner_folder(section.folder, 'VOCdevkit', _LAYOUT)
    train = _annotated(folder, section.train, section.train_size)
    test = _annotated(folder, section.test, section.test_size)
    names = section.class_names or sorted(
        {name for _, _, annotation in train + test for name in annotation.names}
    )
    if not names:
        raise DataError(f'{folder}: given no object in any annotation, allowed: at least one')
    normalization = transforms.Normalization((0, 0, 0), (1, 1, 1), numpy.float32)
    transformed = functools.partial(transform, section.size, normalization)
    train = _examples(train, names, section, to_train=True)
    test = _examples(test, names, section, to_train=False)
    return Data(
        train=Augmented(train, functools.partial(transformed, section.augment)),
        test=TransformDataset(test, functools.partial(transformed, False)),
        shape=(3, section.size, section.size),
        classes=len(names),
        class_names=tuple(names),
        eleven_point=section.eleven_point,
    )


def _annotated(folder, splits, size):
    """Returns a list of (image file, annotation file, annotation)."""
    files = [file for split in splits for file in _files(folder, split)]
    files = first_examples(files, size, f'{folder}: {", ".join(splits)}')
    return [(image, path, read_annotation(path)) for image, path in files]


def _files(folder, split):
    """Yields the image and the annotation file of each example of a split."""
    year, slash, name = split.rpartition('/')
    if not slash:
        raise DataError(f'{folder}: given the split {split}, allowed: such as VOC2007/trainval')
    year = os.path.join(folder, year)
    there = set(os.listdir(find_folder(os.path.join(year, 'JPEGImages'), _LAYOUT)))
    listing = os.path.join(year, 'ImageSets', 'Main', f'{name}.txt')
    for line, words in read_lines(listing, 'a list of image names, one a line'):
        if len(words) != 1:
            raise DataError(f'{listing}, line {line}: given {len(words)} words, allowed: one name')
        image = os.path.join(year, 'JPEGImages', f'{words[0]}.jpg')
        if f'{words[0]}.jpg' not in there:
            raise DataError(f'{image}: missing, though {listing}, line {line} names it')
        yield image, os.path.join(year, 'Annotations', f'{words[0]}.xml')


def _examples(annotated, names, section, to_train):
    """Returns the data set of image, boxes, classes and, of test examples, which are difficult."""
    columns = [], [], []
    for _, path, annotation in annotated:
        unknown = [name for name in annotation.names if name not in names]
        if unknown:
            raise DataError(f'{path}: given class {unknown[0]}, allowed: {", ".join(names)}')
        labels = numpy.array([names.index(name) for name in annotation.names], numpy.int32)
        used = ~annotation.difficult | section.difficult if to_train else slice(None)
        for column, values in zip(columns, (annotation.boxes, labels, annotation.difficult)):
            column.append(values[used])
    images = [image for image, _, _ in annotated]
    examples = labelled_images(images, *columns[: 2 if to_train else 3])
    return ReplaceDamaged(examples) if section.skip_damaged else examples


@dataclasses.dataclass(frozen=True, eq=False)
class Annotation:
    """The objects of one image.

    Attributes:
        names (tuple of str): Class of each.
        boxes (numpy.ndarray): (n, 4) in float32, each (y_min, x_min, y_max, x_max), the edges of
            its pixels. The files count pixels from 1 and name the last one inside, so the box of
            the first pixel alone, (1, 1, 1, 1) in a file, is (0, 0, 1, 1) here.
        difficult (numpy.ndarray): (n,), bool: objects that no detector has to find.
    """

    names: tuple
    boxes: numpy.ndarray
    difficult: numpy.ndarray


def read_annotation(path):
    """Returns the :class:`Annotation` of an image; boxes are clipped to its size, if it is told.

    Raises:
        DataError: If the file is missing or damaged, or has a box without a pixel.
    """
    try:
        root = ElementTree.fromstring(bounded_file.read(path, _MOST_BYTES))
    except OSError as error:
        raise DataError(f'{path}: {error.strerror}; it must be an annotation (XML)') from None
    # ValueError, LookupError: of an encoding that there is not.
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f'{path}: damaged XML ({error})') from None
    if root.tag != 'annotation':
        raise DataError(f'{path}: given <{root.tag}>, allowed: <annotation>')
    sizes = [
        _number(root.findtext(f'size/{side}', '0'), f'{path}, {side}')
        for side in ('height', 'width')
    ]
    limits = [size if size > 0 else math.inf for size in sizes] * 2  # inf where it is not told
    objects = [
        _object(item, limits, f'{path}, object {i}')
        for i, item in enumerate(root.iterfind('object'), 1)
    ]
    return Annotation(
        tuple(name for name, _, _ in objects),
        numpy.array([box for _, box, _ in objects], numpy.float32).reshape(-1, 4),
        numpy.array([difficult for _, _, difficult in objects], bool),
    )


def _object(item, limits, where):
    """Returns the class of an object, its box and whether it is difficult."""
    name, bndbox = (item.findtext('name') or '').strip(), item.find('bndbox')
    if not name or bndbox is None:
        raise DataError(f'{where}: given no name or no bndbox, allowed: {_OBJECT}')
    given = {side: bndbox.findtext(side) for side in _SIDES}
    for side, text in given.items():
        if text is None:
            raise DataError(f'{where}: given no {side}, allowed: {_OBJECT}')
    sides = [_number(text, f'{where}, {side}') for side, text in given.items()]
    box = numpy.clip(numpy.subtract(sides, (1, 1, 0, 0)), 0, limits)
    if (box[2:] <= box[:2]).any():
        given = ', '.join(f'{side} {text}' for side, text in given.items())
        raise DataError(f'{where}: given {given}, allowed: a box with pixels of the image')
    difficult = (item.findtext('difficult') or '0').strip()
    if difficult not in ('0', '1'):
        raise DataError(f'{where}, difficult: given {difficult!r}, allowed: 0 or 1')
    return name, box, difficult == '1'


def _number(text, where):
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f'{where}: given {text!r}, allowed: a number')
    return number
