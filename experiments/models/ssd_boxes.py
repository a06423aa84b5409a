"""The boxes of SSD: the default ones, the objects matched to them, and the boxes that are detected.

Liu et al. 2016 (arXiv 1512.02325), sections 2.2 and 3.1. The numbers are those of the authors'
released models, which differ in places from the formulas of the paper: ``examples/ssd/
ssd_pascal.py`` and ``ssd_pascal_512.py`` in the ``ssd`` branch of github.com/weiliu89/caffe. The
default boxes are not clipped to the image.

A default box is (y, x, h, w) with (y, x) its centre, any other box (y_min, x_min, y_max, x_max),
all in pixels.
"""

import math
from typing import NamedTuple

from experiments.data.transforms import box_iou

import numpy
from chainer import functions

BACKGROUND = 0
# An IoU over it is a match.
_MATCH_IOU = 0.5
# What the offsets of the centre and of the logarithms of height and width are divided by, so that
# all four have about the same variance.
_VARIANCES = (0.1, 0.2)
# Of detections: the least score, the IoU over which a better box suppresses another, the most
# candidates of a class. ChainerCV has no such limit, but 24,564 boxes are compared in pairs here.
_SCORE = 0.01
_SUPPRESSION_IOU = 0.45
_CANDIDATES = 400


class Grid(NamedTuple):
    """The default boxes of one feature map; all lengths in pixels of the image.

    Attributes:
        cells (int): Height and width of the feature map.
        step (int): From one cell's centre to the next.
        size (float): Side of the small square box.
        next_size (float): The large square's side is the geometric mean of this and ``size``.
        ratios (tuple of int): For each r there is a box of ratio r and one of 1 / r, with the area
            of the small square.
    """

    cells: int
    step: int
    size: float
    next_size: float
    ratios: tuple

    @property
    def boxes_per_cell(self):
        """int: How many boxes have one centre."""
        return 2 + 2 * len(self.ratios)

    def boxes(self):
        """Returns the boxes of all cells, row by row: float32 (boxes, 4), each (y, x, h, w)."""
        large = math.sqrt(self.size * self.next_size)
        shapes = [(self.size, self.size), (large, large)]
        for ratio in self.ratios:
            long, short = self.size * math.sqrt(ratio), self.size / math.sqrt(ratio)
            shapes += [(short, long), (long, short)]
        centres = (numpy.arange(self.cells) + 0.5) * self.step
        boxes = numpy.empty((self.cells, self.cells, len(shapes), 4), numpy.float32)
        boxes[..., 0] = centres[:, None, None]
        boxes[..., 1] = centres[None, :, None]
        boxes[..., 2:] = shapes
        return boxes.reshape(-1, 4)


# Of an image of 300x300: conv4_3, fc7, conv6_2, conv7_2, conv8_2, conv9_2.
GRIDS_300 = (
    Grid(38, 8, 30.0, 60.0, (2,)),
    Grid(19, 16, 60.0, 111.0, (2, 3)),
    Grid(10, 32, 111.0, 162.0, (2, 3)),
    Grid(5, 64, 162.0, 213.0, (2, 3)),
    Grid(3, 100, 213.0, 264.0, (2,)),
    Grid(1, 300, 264.0, 315.0, (2,)),
)
# Of an image of 512x512: the same, and conv10_2.
GRIDS_512 = (
    Grid(64, 8, 35.84, 76.8, (2,)),
    Grid(32, 16, 76.8, 153.6, (2, 3)),
    Grid(16, 32, 153.6, 230.4, (2, 3)),
    Grid(8, 64, 230.4, 307.2, (2, 3)),
    Grid(4, 128, 307.2, 384.0, (2, 3)),
    Grid(2, 256, 384.0, 460.8, (2,)),
    Grid(1, 512, 460.8, 537.6, (2,)),
)


def default_boxes(grids):
    """Returns the boxes of feature maps, one map after the other, as :meth:`Grid.boxes` does."""
    return numpy.concatenate([grid.boxes() for grid in grids])


def corners(centred):
    """Returns (y_min, x_min, y_max, x_max) of boxes (..., 4) given as (y, x, h, w)."""
    centre, half = centred[..., :2], centred[..., 2:] / 2
    return numpy.concatenate([centre - half, centre + half], axis=-1)


def encode(boxes, default_boxes):
    """Encodes boxes relative to default boxes, one each (Liu et al. 2016, equation 2).

    Args:
        boxes (numpy.ndarray): (..., 4), of positive height and width.
        default_boxes (numpy.ndarray): (..., 4).

    Returns:
        numpy.ndarray: (..., 4) in float32: vertical and horizontal offset of the centre, in heights
        and widths of the default box, and the logarithms of the ratios of heights and of widths,
        divided by their variances.
    """
    sides = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + sides / 2
    offset = (centre - default_boxes[..., :2]) / default_boxes[..., 2:]
    growth = numpy.log(sides / default_boxes[..., 2:])
    encoded = [offset / _VARIANCES[0], growth / _VARIANCES[1]]
    return numpy.concatenate(encoded, axis=-1).astype(numpy.float32, copy=False)


def decode(locs, default_boxes):
    """Returns the boxes (..., 4) that :func:`encode` gave ``locs`` for."""
    sides = default_boxes[..., 2:]
    centre = default_boxes[..., :2] + locs[..., :2] * _VARIANCES[0] * sides
    sides = numpy.exp(locs[..., 2:] * _VARIANCES[1]) * sides
    return corners(numpy.concatenate([centre, sides], axis=-1))


class BoxMatcher:
    """Turns an image's objects, however many, into targets of fixed size, one a default box.

    It is meant for a ``chainer.datasets.TransformDataset``: there the processes that load images
    match them, and batches can be concatenated.
    """

    def __init__(self, default_boxes):
        self._default_boxes = default_boxes
        self._corners = corners(default_boxes)

    def __call__(self, example):
        """Matches the objects of an example, the difficult ones among them.

        Args:
            example (tuple): Image, boxes (n, 4) as (y_min, x_min, y_max, x_max) in pixels, labels
                (n,) from 0; what follows is left out.

        Returns:
            tuple: Image, encoded boxes (boxes, 4) in float32 and labels (boxes,) in int32: 0 for
            background, where the encoded box is 0, or 1 + the object's label.

        Raises:
            ValueError: If a box has no area.
        """
        image, objects, labels = example[:3]
        locs = numpy.zeros(self._default_boxes.shape, numpy.float32)
        targets = numpy.full(len(locs), BACKGROUND, numpy.int32)
        if len(objects) > 0:
            if not (objects[:, 2:] > objects[:, :2]).all():
                raise ValueError(f'boxes must have height and width, given {objects.tolist()}')
            matches = self._match(objects)
            found = matches >= 0
            locs[found] = encode(objects[matches[found]], self._default_boxes[found])
            targets[found] = 1 + labels[matches[found]]
        return image, locs, targets

    def _match(self, objects):
        """Returns the index of each default box's object, or -1."""
        iou = box_iou(self._corners, objects)
        best = iou.argmax(axis=1)
        best_iou = iou[numpy.arange(len(iou)), best]
        matches = numpy.where(best_iou > _MATCH_IOU, best, -1)
        # Every object gets a default box of its own, whatever the overlap: the best pair first.
        for _ in range(len(objects)):
            default, of_object = numpy.unravel_index(iou.argmax(), iou.shape)
            matches[default] = of_object
            iou[default] = iou[:, of_object] = -1
        return matches


class Detections(NamedTuple):
    """The objects found in an image, by decreasing score.

    Attributes:
        boxes (numpy.ndarray): (n, 4) in float32: (y_min, x_min, y_max, x_max) in pixels.
        labels (numpy.ndarray): (n,) in int32, from 0.
        scores (numpy.ndarray): (n,) in float32: probabilities.
    """

    boxes: numpy.ndarray
    labels: numpy.ndarray
    scores: numpy.ndarray


def detect(locs, confs, default_boxes, size):
    """Returns the :class:`Detections` of an image.

    Of each class, the best boxes go through non-maximum suppression, and all that it leaves are
    detections. A score that is not a number is no detection.

    Args:
        locs (numpy.ndarray): (boxes, 4), encoded, of the network.
        confs (numpy.ndarray): (boxes, classes + 1), logits of the network, the background first.
        default_boxes (numpy.ndarray): (boxes, 4), of the network.
        size (int): Height and width of the image, to which the boxes are clipped.
    """
    # Far too large or infinite numbers, of a network that diverged, are no reason to stop.
    with numpy.errstate(over='ignore', invalid='ignore'):
        boxes = decode(locs.astype(numpy.float32), default_boxes)
        probabilities = functions.softmax(confs.astype(numpy.float32)).array
        found = [
            _of_class(boxes, scores, label) for label, scores in enumerate(probabilities.T[1:])
        ]
    boxes, labels, scores = (numpy.concatenate(parts) for parts in zip(*found))
    best = numpy.argsort(-scores, kind='stable')
    return Detections(numpy.clip(boxes[best], 0, size), labels[best], scores[best])


def _of_class(boxes, scores, label):
    candidates = numpy.flatnonzero(scores > _SCORE)
    candidates = candidates[numpy.argsort(-scores[candidates], kind='stable')[:_CANDIDATES]]
    candidates = candidates[non_maximum_suppression(boxes[candidates], _SUPPRESSION_IOU)]
    labels = numpy.full(len(candidates), label, numpy.int32)
    return boxes[candidates], labels, scores[candidates]


def non_maximum_suppression(boxes, threshold):
    """Returns which boxes do not overlap with a better one that is kept.

    The result is that of the greedy algorithm, but all boxes are looked at together until nothing
    changes (Cluster-NMS: Zheng et al. 2020, arXiv 2005.03572): a few rounds instead of hundreds.

    Args:
        boxes (numpy.ndarray): (n, 4), by decreasing score.
        threshold (float): An IoU over it suppresses.

    Returns:
        numpy.ndarray: (n,), bool.
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
