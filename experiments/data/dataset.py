"""What every data set is loaded as, and what their loading has in common: folders, lists, choice.

``layout`` is how a folder or a list must be laid out, for the errors.
"""

import dataclasses
import os
from typing import Any, Optional

from experiments.config import bounded_file
from experiments.config.errors import DataError

import numpy

_MOST_BYTES = 2**25  # of a list: a million images


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set, for one of four tasks.

    Examples are tuples. Images are arrays of shape (channels, height, width), colours in the order
    red, green, blue, of the dtype that the model computes in.

    - Classification: features (an image, or a vector) and class (int32).
    - Detection: image; boxes, float32 of shape (n, 4), each (y_min, x_min, y_max, x_max) in pixels
      of that image; classes of the boxes, int32 of shape (n,). In ``test`` a fourth: whether each
      is difficult, bool of shape (n,). There are images without boxes.
    - Segmentation: image and class of each pixel, int32 of shape (height, width), -1 for void.
    - Language: characters by their classes and the class of the one that follows each, both int32
      of shape (length,).

    Attributes:
        train (~chainer.dataset.DatasetMixin): Examples to train with.
        test (~chainer.dataset.DatasetMixin): Examples to evaluate with.
        shape (tuple of int): Shape of one training example's features.
        classes (int): Number of classes; neither void nor a detector's background counts.
        class_names (tuple of str): Their names in order, or ``None`` if they are just numbers.
        class_weights (numpy.ndarray): What the loss weighs each class with, float32, or ``None``.
        mean: What was subtracted, in units of pixels (0 to 255), per channel: a tuple of floats;
            or per pixel: an array of the shape of an image. ``None`` if nothing was.
        eleven_point (bool): Whether average precision is taken at eleven points, as for VOC 2007.
    """

    train: Any
    test: Any
    shape: tuple
    classes: int
    class_names: Optional[tuple] = None
    class_weights: Any = None
    mean: Any = None
    eleven_point: bool = False

    @property
    def names(self):
        """Sequence of str: The classes' names, or else their numbers."""
        return self.class_names or [str(number) for number in range(self.classes)]


def first_examples(examples, size, where):
    """Returns the first ``size`` of a sequence of examples; all if ``size`` is ``None``.

    Raises:
        DataError: If there are not so many; ``where`` names them in it.
    """
    if size is not None and size > len(examples):
        raise DataError(f'{where}: given {size} examples to use, allowed: at most {len(examples)}')
    return examples[:size]


def first_of_each_class(classes, size, where):
    """Returns the indices, ascending, of the first examples of each class, as balanced as can be.

    ``classes`` is an array of those of all examples; else it is as :func:`first_examples`.
    """
    count = len(first_examples(classes, size, where))
    by_class = numpy.argsort(classes, kind='stable')
    _, starts, sizes = numpy.unique(classes[by_class], return_index=True, return_counts=True)
    place = numpy.empty(len(classes), int)  # among those of the same class
    place[by_class] = numpy.arange(len(classes)) - numpy.repeat(starts, sizes)
    return numpy.sort(numpy.argsort(place, kind='stable')[:count])


def inner_folder(folder, name, layout):
    """Returns the folder ``name`` in the one that :func:`find_folder` finds, or else that one."""
    folder = find_folder(folder, layout)
    below = os.path.join(folder, name)
    return below if os.path.isdir(below) else folder


def find_folder(folder, layout):
    """Returns the folder that the user named, ``~`` expanded.

    Raises:
        DataError: If it is no folder.
    """
    folder = os.path.expanduser(folder)
    if not os.path.isdir(folder):
        raise DataError(f'{folder}: given no folder, allowed: {layout}')
    return folder


def read_lines(path, layout):
    """Returns number (from 1) and words of each line of a file that is not empty, a list of tuples.

    Raises:
        DataError: If the file cannot be read, is not text, or has no such line.
    """
    try:
        text = bounded_file.read(path, _MOST_BYTES).decode('utf-8')
    except OSError as error:
        raise DataError(f'{path}: {error.strerror}; it must be {layout}') from None
    except UnicodeDecodeError as error:
        raise DataError(f'{path}: not text (byte {error.start}); it must be {layout}') from None
    lines = enumerate(text.splitlines(), 1)
    numbered = [(i, line.split()) for i, line in lines if line.strip()]
    if not numbered:
        raise DataError(f'{path}: empty; it must be {layout}')
    return numbered
