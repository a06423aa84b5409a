"""Average precision of detections, as in the PASCAL VOC challenge.

Everingham et al. 2010, "The PASCAL Visual Object Classes (VOC) Challenge", section 4.2, and
``VOCevaldet.m`` of its development kit.
"""

import dataclasses

from experiments.overlap import overlaps
from experiments.tasks.miou import mean_of_present

import numpy

_OVERLAP = 0.5


@dataclasses.dataclass(frozen=True)
class Verdicts:
    """What a class's detections are worth, those of one image or of many.

    Attributes:
        scores (numpy.ndarray): (n,), of the detections that count.
        right (numpy.ndarray): (n,), bool: which of these are right.
        objects (int): How many there were to be found.
    """

    scores: numpy.ndarray
    right: numpy.ndarray
    objects: int


def judge(boxes, scores, true_boxes, difficult=None):
    """Compares the detections of one class in one image to the objects of that class.

    A detection belongs to the object that it overlaps with most. From an overlap (IoU) of 0.5 on it
    is right, if it is the object's best; the object's other detections are wrong, and so are those
    that overlap less. What belongs to a difficult object counts neither way.

    Args:
        boxes (numpy.ndarray): (n, 4), detections: (y_min, x_min, y_max, x_max).
        scores (numpy.ndarray): (n,).
        true_boxes (numpy.ndarray): (m, 4), objects.
        difficult (numpy.ndarray): (m,), bool; ``None`` if none is.

    Returns:
        Verdicts: By decreasing score.
    """
    if difficult is None:
        difficult = numpy.zeros(len(true_boxes), bool)
    order = numpy.argsort(-scores, kind='stable')
    boxes, scores = boxes[order], scores[order]
    right = numpy.zeros(len(boxes), bool)
    counts = numpy.ones(len(boxes), bool)
    if len(boxes) > 0 and len(true_boxes) > 0:
        overlap = overlaps(boxes, true_boxes)
        nearest = overlap.argmax(axis=1)
        near = overlap.max(axis=1) >= _OVERLAP
        counts = ~(near & difficult[nearest])
        # The first of an object is its best, since they are sorted.
        _, first = numpy.unique(numpy.where(near, nearest, -1), return_index=True)
        right[first] = (near & counts)[first]
    return Verdicts(scores[counts], right[counts], int((~difficult).sum()))


def joined(verdicts):
    """Returns the verdicts of several images as one."""
    verdicts = list(verdicts)
    return Verdicts(
        numpy.concatenate([numpy.empty(0), *(item.scores for item in verdicts)]),
        numpy.concatenate([numpy.empty(0, bool), *(item.right for item in verdicts)]),
        sum(item.objects for item in verdicts),
    )


def average_precision(verdicts, eleven_point=False):
    """Returns the average precision of a class.

    Args:
        verdicts (Verdicts): Of all images.
        eleven_point (bool): The mean of the precisions at recalls of 0, 0.1, ... 1, as until VOC
            2009, instead of the area under the curve. In both, the precision at a recall is the
            highest at that recall or a higher one.

    Returns:
        float: 0 to 1, nan if there was nothing to be found.
    """
    if verdicts.objects == 0:
        return float('nan')
    right = verdicts.right[numpy.argsort(-verdicts.scores, kind='stable')]
    found = numpy.cumsum(right)
    recall = found / verdicts.objects
    precision = found / numpy.arange(1, len(right) + 1)
    precision = numpy.maximum.accumulate(precision[::-1])[::-1]
    if eleven_point:
        # With whole numbers: 0.1 * 3 is more than 3 / 10, and a recall of 3 / 10 would be too low.
        reached = numpy.searchsorted(10 * found, numpy.arange(11) * verdicts.objects)
        return float(numpy.append(precision, 0)[reached].mean())
    return float(numpy.sum(numpy.diff(recall, prepend=0) * precision))


def mean_average_precision(average_precisions):
    """Returns the mean over the classes, those without objects (nan) left out."""
    return mean_of_present(numpy.asarray(average_precisions, float))
