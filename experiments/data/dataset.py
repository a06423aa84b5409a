"""What every data set is loaded as, and the choice of fewer examples than there are."""

import dataclasses
from typing import Any, Optional

from experiments.config.errors import DataError

import numpy


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set, for one of three tasks.

    Examples are tuples. Images are arrays of shape (channels, height, width), colours in the order
    red, green, blue, of the dtype that the model computes in.

    - Classification: features (an image, or a vector) and class (int32).
    - Detection: image; boxes, float32 of shape (n, 4), each (y_min, x_min, y_max, x_max) in pixels
      of that image; classes of the boxes, int32 of shape (n,). In ``test`` a fourth: whether each
      is difficult, bool of shape (n,). There are images without boxes.
    - Segmentation: image and class of each pixel, int32 of shape (height, width), -1 for void.

    What is random in a training example is drawn by ``experiments.data.randomness``.

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


def first_examples(count, size, where):
    """Returns the indices of the first examples.

    Args:
        count (int): How many there are.
        size (int): How many are wanted; ``None`` is all.
        where (str): Names them in the error.

    Returns:
        numpy.ndarray: The indices.

    Raises:
        DataError: If there are not so many.
    """
    if size is not None and size > count:
        raise DataError(f'{where}: given {size} examples to use, allowed: at most {count}')
    return numpy.arange(count if size is None else size)


def first_of_each_class(classes, size, where):
    """Returns the indices of the first examples of each class, balanced as far as can be.

    Args:
        classes (numpy.ndarray): Class of each example that there is.
        size (int): How many are wanted; ``None`` is all.
        where (str): Names them in the error.

    Returns:
        numpy.ndarray: The indices, ascending.

    Raises:
        DataError: If there are not so many.
    """
    count = len(first_examples(len(classes), size, where))
    by_class = numpy.argsort(classes, kind='stable')
    _, starts, sizes = numpy.unique(classes[by_class], return_index=True, return_counts=True)
    place = numpy.empty(len(classes), int)  # among those of the same class
    place[by_class] = numpy.arange(len(classes)) - numpy.repeat(starts, sizes)
    return numpy.sort(numpy.argsort(place, kind='stable')[:count])
