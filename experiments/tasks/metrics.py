"""The metrics of the tasks: top-k accuracy, mean intersection over union, average precision."""

import dataclasses

from experiments.data.transforms import box_iou

import numpy
from chainer import backend

# The label of pixels that do not count.
VOID = -1
# From which on a detection is right (Everingham et al. 2010, section 4.2).
_IOU = 0.5


def top_k_accuracy(logits, classes, k):
    """Returns the share of a batch whose right class is among the k highest logits.

    Of equal logits the class of lower number is the likelier, as for ``argmax``; one that is not a
    number is likelier than any, so that a network that diverged is never right.

    Args:
        logits (:ref:`ndarray`): (n, classes).
        classes (:ref:`ndarray`): (n,), the right ones.
        k (int): Less than the number of classes.

    Returns:
        :ref:`ndarray`: A float32 scalar on the device of the logits.

    Raises:
        ValueError: If there are not more than k classes.
    """
    if not 0 < k < logits.shape[1]:
        raise ValueError(f'top {k} of {logits.shape[1]} classes, must be fewer than there are')
    xp = backend.get_array_module(logits)
    labels = xp.arange(logits.shape[1])
    right = logits[xp.arange(len(logits)), classes][:, None]
    likelier = ~(logits <= right) | ((logits == right) & (labels < classes[:, None]))
    return (likelier.sum(axis=1) < k).mean(dtype='float32')


def confusion_matrix(predicted, labels, classes):
    """Counts pixels by their class and the one predicted.

    Args:
        predicted (:ref:`ndarray`): Integers from 0, of any shape.
        labels (:ref:`ndarray`): Integers of the same shape, from 0, or -1 for void.
        classes (int): Number of classes.

    Returns:
        :ref:`ndarray`: (classes, classes) in int64: [i, j] pixels of class i were taken for j.

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
    """Returns each class's intersection over union, (classes,), of a confusion matrix.

    That of a class that is neither in the truth nor predicted is nan.
    """
    true = numpy.diag(counts)
    return _ratio(true, counts.sum(axis=0) + counts.sum(axis=1) - true)


def miou(counts):
    """Returns the mean of the classes' intersections over unions, nan left out."""
    return mean_of_present(ious(counts))


def pixel_accuracy(counts):
    """Returns the share of pixels that are classified correctly (*global accuracy* of SegNet)."""
    return float(_ratio(numpy.trace(counts), counts.sum()))


def class_accuracy(counts):
    """Returns the mean of the classes' accuracies (*class average accuracy* of SegNet)."""
    return mean_of_present(_ratio(numpy.diag(counts), counts.sum(axis=1)))


def mean_of_present(values):
    """Returns the mean of the values that are not nan; nan if all are."""
    values = numpy.asarray(values, float)
    present = values[~numpy.isnan(values)]
    return float(present.mean()) if present.size else float('nan')


def _ratio(part, whole):
    part, whole = numpy.asarray(part, float), numpy.asarray(whole, float)
    return numpy.divide(part, whole, out=numpy.full(whole.shape, numpy.nan), where=whole > 0)


@dataclasses.dataclass(frozen=True)
class DetectionMatches:
    """Which detections of a class are true positives, in one image or in many.

    Attributes:
        scores (numpy.ndarray): (n,), of the detections that count.
        true_positive (numpy.ndarray): (n,), bool; the others are false positives.
        objects (int): How many there were to be found.
    """

    scores: numpy.ndarray
    true_positive: numpy.ndarray
    objects: int


def match_detections(boxes, scores, true_boxes, difficult=None):
    """Matches the detections of one class in one image to the objects of that class.

    A detection belongs to the object that it overlaps with most, from an IoU of 0.5 on. The one of
    highest score of an object is a true positive; all others are false positives. What belongs to a
    difficult object counts neither way.

    Args:
        boxes (numpy.ndarray): (n, 4), detections: (y_min, x_min, y_max, x_max).
        scores (numpy.ndarray): (n,).
        true_boxes (numpy.ndarray): (m, 4), objects.
        difficult (numpy.ndarray): (m,), bool; ``None`` if none is.

    Returns:
        DetectionMatches: By decreasing score.
    """
    if difficult is None:
        difficult = numpy.zeros(len(true_boxes), bool)
    order = numpy.argsort(-scores, kind='stable')
    boxes, scores = boxes[order], scores[order]
    true_positive = numpy.zeros(len(boxes), bool)
    counts = numpy.ones(len(boxes), bool)
    if len(boxes) > 0 and len(true_boxes) > 0:
        iou = box_iou(boxes, true_boxes)
        nearest = iou.argmax(axis=1)
        near = iou.max(axis=1) >= _IOU
        counts = ~(near & difficult[nearest])
        # The first of an object is its best, since they are sorted.
        _, first = numpy.unique(numpy.where(near, nearest, -1), return_index=True)
        true_positive[first] = (near & counts)[first]
    return DetectionMatches(scores[counts], true_positive[counts], int((~difficult).sum()))


def concatenate_matches(matches):
    """Returns the matches of several images, a sequence, as one."""
    return DetectionMatches(
        numpy.concatenate([numpy.empty(0), *(item.scores for item in matches)]),
        numpy.concatenate([numpy.empty(0, bool), *(item.true_positive for item in matches)]),
        sum(item.objects for item in matches),
    )


def average_precision(matches, eleven_point=False):
    """Returns the average precision of a class, 0 to 1; nan if there was nothing to be found.

    Everingham et al. 2010, section 4.2, and ``VOCevaldet.m`` of the development kit.

    Args:
        matches (DetectionMatches): Of all images.
        eleven_point (bool): The mean of the precisions at recalls of 0, 0.1, ... 1, as until VOC
            2009, instead of the area under the curve. In both, the precision at a recall is the
            highest at that recall or a higher one. Recalls of exactly 3/10, 6/10 and 7/10 do not
            reach these points, as in ChainerCV.
    """
    if matches.objects == 0:
        return float('nan')
    order = numpy.argsort(-matches.scores, kind='stable')
    found = numpy.cumsum(matches.true_positive[order])
    recall = found / matches.objects
    precision = found / numpy.arange(1, len(order) + 1)
    precision = numpy.maximum.accumulate(precision[::-1])[::-1]
    if eleven_point:
        # The authors' evaluation (ChainerCV's) compares floats: its 0.3 is 3 * 0.1, which is more
        # than 3 / 10.
        reached = numpy.searchsorted(recall, numpy.arange(11) * 0.1)
        return float(numpy.append(precision, 0)[reached].mean())
    return float(numpy.sum(numpy.diff(recall, prepend=0) * precision))
