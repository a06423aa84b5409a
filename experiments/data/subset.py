"""Fewer examples than there are, for a small setting."""

from experiments.errors import DataError

import numpy


def first(count, size, where):
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
    """Returns the indices of the first examples of each class, of each as many as can be.

    Args:
        classes (numpy.ndarray): Class of each example that there is.
        size (int): How many are wanted; ``None`` is all.
        where (str): Names them in the error.

    Returns:
        numpy.ndarray: The indices, ascending.

    Raises:
        DataError: If there are not so many.
    """
    count = len(first(len(classes), size, where))
    by_class = numpy.argsort(classes, kind='stable')
    _, starts, sizes = numpy.unique(classes[by_class], return_index=True, return_counts=True)
    rank = numpy.empty(len(classes), int)  # among those of the same class
    rank[by_class] = numpy.arange(len(classes)) - numpy.repeat(starts, sizes)
    return numpy.sort(numpy.argsort(rank, kind='stable')[:count])
