"""From the outputs of SSD to detections: decoding and non-maximum suppression.

Liu et al. 2016, section 3.1 and the end of section 3.6, with the numbers of the authors' released
models.
"""

import dataclasses

from experiments.data.boxes import box_iou
from experiments.models.default_boxes import decode

import numpy

_SCORE = 0.01
_IOU = 0.45
_CANDIDATES = 400
_DETECTIONS = 200


@dataclasses.dataclass(frozen=True)
class Detections:
    """What was found in an image, by decreasing score.

    Attributes:
        boxes (numpy.ndarray): (n, 4) in float32: (y_min, x_min, y_max, x_max) in pixels.
        labels (numpy.ndarray): (n,) in int32, from 0.
        scores (numpy.ndarray): (n,) in float32: probabilities.
    """

    boxes: numpy.ndarray
    labels: numpy.ndarray
    scores: numpy.ndarray


def detect(locs, confs, default_boxes, size):
    """Returns what SSD found in an image.

    Of each class, the 400 best boxes with a score over 0.01 go through non-maximum suppression at
    an IoU of 0.45; of all classes together the best 200 are left. A score that is not a number
    is no detection.

    Args:
        locs (numpy.ndarray): (boxes, 4), encoded, of the network.
        confs (numpy.ndarray): (boxes, classes + 1), logits of the network, the background first.
        default_boxes (numpy.ndarray): (boxes, 4), of the network.
        size (int): Height and width of the image, to which the boxes are clipped.

    Returns:
        Detections: The detections.
    """
    # Far too large or infinite numbers, of a network that diverged, are no reason to stop.
    with numpy.errstate(over='ignore', invalid='ignore'):
        boxes = decode(locs.astype(numpy.float32), default_boxes)
        probabilities = _softmax(confs.astype(numpy.float32))
        found = [
            _of_class(boxes, scores, label) for label, scores in enumerate(probabilities.T[1:])
        ]
    boxes, labels, scores = (numpy.concatenate(parts) for parts in zip(*found))
    best = numpy.argsort(-scores, kind='stable')[:_DETECTIONS]
    return Detections(numpy.clip(boxes[best], 0, size), labels[best], scores[best])


def _of_class(boxes, scores, label):
    candidates = numpy.flatnonzero(scores > _SCORE)
    order = numpy.argsort(-scores[candidates], kind='stable')[:_CANDIDATES]
    candidates = candidates[order]
    candidates = candidates[non_maximum_suppression(boxes[candidates], _IOU)]
    labels = numpy.full(len(candidates), label, numpy.int32)
    return boxes[candidates], labels, scores[candidates]


def _softmax(logits):
    exponentials = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def non_maximum_suppression(boxes, threshold):
    """Leaves out every box that overlaps with a better one that is kept.

    The result is that of the greedy algorithm, one box after the other, but all boxes are looked at
    together until nothing changes (Cluster-NMS: Zheng et al. 2020, arXiv 2005.03572), which takes a
    few rounds instead of hundreds.

    Args:
        boxes (numpy.ndarray): (n, 4), by decreasing score.
        threshold (float): An IoU over it suppresses.

    Returns:
        numpy.ndarray: (n,), bool: which are kept.
    """
    # [i, j]: box i, if it is kept, suppresses box j.
    suppresses = numpy.triu(box_iou(boxes, boxes) > threshold, 1)
    kept = numpy.ones(len(boxes), bool)
    while True:
        # After round k the first k boxes are final, since nothing suppresses a better one.
        now = ~suppresses[kept].any(axis=0)
        if (now == kept).all():
            return kept
        kept = now
