"""An annotation of PASCAL VOC: an XML file that says what is where in an image."""

import dataclasses
import math
from xml.etree import ElementTree

from experiments.errors import DataError

import numpy

_SIDES = ('ymin', 'xmin', 'ymax', 'xmax')
_OBJECT = 'an object with name and bndbox (xmin, ymin, xmax, ymax)'


@dataclasses.dataclass(frozen=True, eq=False)
class Annotation:
    """The objects of one image.

    Attributes:
        names (tuple of str): Class of each.
        boxes (numpy.ndarray): float32 of shape (n, 4), each (y_min, x_min, y_max, x_max), the
            edges of its pixels. The files count pixels from 1 and name the last one inside, so the
            box of the first pixel alone, (1, 1, 1, 1) in a file, is (0, 0, 1, 1) here.
        difficult (numpy.ndarray): bool of shape (n,): objects that no detector has to find.
    """

    names: tuple
    boxes: numpy.ndarray
    difficult: numpy.ndarray


def read(path):
    """Reads an annotation.

    Boxes are clipped to the image's size, if the file tells it.

    Args:
        path (str): The file.

    Returns:
        Annotation: The objects.

    Raises:
        DataError: If the file is missing or damaged, or has a box without a pixel.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        raise DataError(f'{path}: {error.strerror}; it must be an annotation (XML)') from None
    # ValueError, LookupError: of an encoding that there is not.
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f'{path}: damaged XML ({error})') from None
    if root.tag != 'annotation':
        raise DataError(f'{path}: given <{root.tag}>, allowed: <annotation>')
    objects = [_object(item, path, i) for i, item in enumerate(root.iterfind('object'), 1)]
    boxes = numpy.array([box for _, box, _ in objects], numpy.float64).reshape(-1, 4)
    boxes = numpy.clip(boxes, 0, _size(root, path))
    empty = numpy.flatnonzero((boxes[:, 2:] <= boxes[:, :2]).any(axis=1))
    if len(empty):
        given = root.findall('object')[empty[0]].find('bndbox')
        given = ', '.join(f'{side} {given.findtext(side)}' for side in _SIDES)
        raise DataError(
            f'{path}, object {empty[0] + 1}: given {given}, allowed: a box with pixels of the image'
        )
    return Annotation(
        tuple(name for name, _, _ in objects),
        boxes.astype(numpy.float32),
        numpy.array([difficult for _, _, difficult in objects], bool),
    )


def _size(root, path):
    """Returns (height, width, height, width), inf where it is not told."""
    sides = []
    for side in ('height', 'width'):
        text = root.findtext(f'size/{side}')
        length = math.inf if text is None else _number(text, f'{path}, {side}')
        sides.append(length if length > 0 else math.inf)
    return sides * 2


def _object(item, path, number):
    where = f'{path}, object {number}'
    name, box = (item.findtext('name') or '').strip(), item.find('bndbox')
    if not name or box is None:
        raise DataError(f'{where}: given no name or no bndbox, allowed: {_OBJECT}')
    sides = []
    for side in _SIDES:
        text = box.findtext(side)
        if text is None:
            raise DataError(f'{where}: given no {side}, allowed: {_OBJECT}')
        sides.append(_number(text, f'{where}, {side}'))
    y_min, x_min, y_max, x_max = sides
    difficult = (item.findtext('difficult') or '0').strip()
    if difficult not in ('0', '1'):
        raise DataError(f'{where}, difficult: given {difficult!r}, allowed: 0 or 1')
    return name, (y_min - 1, x_min - 1, y_max, x_max), difficult == '1'


def _number(text, where):
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f'{where}: given {text!r}, allowed: a number')
    return number
