"""Metrics of a classification of pixels, all from the confusion matrix."""

import numpy
from chainer import backend

# The label of pixels that do not count.
VOID = -1


def confusion(predicted, labels, classes):
    """Counts pixels by what they are and what they were taken for.

    Args:
        predicted (:ref:`ndarray`): Integers from 0, of any shape.
        labels (:ref:`ndarray`): Integers of the same shape, from 0, or -1 for void.
        classes (int): Number of classes.

    Returns:
        :ref:`ndarray`: (classes, classes) in int64: [i, j] pixels of class i were taken for class
        j. The sum of the matrices of several images is the matrix of all of them.

    Raises:
        ValueError: If a label is not one of these.
    """
    xp = backend.get_array_module(labels)
    counted = labels != VOID
    labels, predicted = labels[counted], predicted[counted]
    if labels.size > 0 and not (0 <= int(labels.min()) and int(labels.max()) < classes):
        given = f'{int(labels.min())} to {int(labels.max())}'
        raise ValueError(f'labels must be 0 to {classes - 1}, or {VOID} for void; given {given}')
    pairs = labels.astype(numpy.int64) * classes + predicted
    counts = xp.bincount(pairs, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(numpy.int64)


def ious(counts):
    """Returns of each class the intersection over union of truth and prediction.

    Args:
        counts (numpy.ndarray): A confusion matrix.

    Returns:
        numpy.ndarray: (classes,), nan of a class that is in neither.
    """
    true = numpy.diag(counts)
    return _ratio(true, counts.sum(axis=0) + counts.sum(axis=1) - true)


def miou(counts):
    """Returns the mean of the classes' intersections over unions, nan left out."""
    return mean_of_present(ious(counts))


def pixel_accuracy(counts):
    """Returns the share of pixels that are classified rightly."""
    return float(_ratio(numpy.trace(counts), counts.sum()))


def class_accuracy(counts):
    """Returns the mean of the shares of each class's pixels that are, classes without any left out.

    Badrinarayanan et al. (2017) call the two *global* and *class average* accuracy.
    """
    return mean_of_present(_ratio(numpy.diag(counts), counts.sum(axis=1)))


def mean_of_present(values):
    """Returns the mean of the values that are not nan; nan if all are."""
    present = values[~numpy.isnan(values)]
    return float(present.mean()) if present.size else float('nan')


def _ratio(part, whole):
    part, whole = numpy.asarray(part, float), numpy.asarray(whole, float)
    return numpy.divide(part, whole, out=numpy.full(whole.shape, numpy.nan), where=whole > 0)
