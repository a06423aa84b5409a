"""The loss of SSD, and the matching of default boxes and objects that gives its targets.

Liu et al. 2016, section 2.2: "Matching strategy", equations 1 to 3 with alpha = 1, and "Hard
negative mining".
"""

from experiments.data.boxes import box_iou
from experiments.models.default_boxes import corners, encode

import numpy
from chainer import backend, functions

BACKGROUND = 0
_NEGATIVES_PER_POSITIVE = 3


class BoxMatcher:
    """Turns an image's objects, however many, into targets of fixed size, one a default box.

    It is meant for the data set (``chainer.datasets.TransformDataset(data, matcher)``): there the
    processes that load images match them, and batches can be concatenated.

    Args:
        default_boxes (numpy.ndarray): (boxes, 4), of the model: ``ssd.default_boxes``.
        threshold (float): An IoU over it is a match.
    """

    def __init__(self, default_boxes, threshold=0.5):
        self._default_boxes = default_boxes
        self._corners = corners(default_boxes)
        self._threshold = threshold

    def __call__(self, example):
        """Matches the objects of an example, those that are hard to detect among them.

        Args:
            example (tuple): Image, boxes (n, 4) as (y_min, x_min, y_max, x_max) in pixels, labels
                (n,) from 0; what follows, as ``difficult``, is left out.

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
        matches = numpy.where(best_iou > self._threshold, best, -1)
        # Every object gets a default box of its own, whatever the overlap: the best pair first.
        for _ in range(len(objects)):
            default, of_object = numpy.unravel_index(iou.argmax(), iou.shape)
            matches[default] = of_object
            iou[default] = iou[:, of_object] = -1
        return matches


def multibox_loss(locs, confs, target_locs, targets):
    """Returns both parts of the loss, in float32.

    Both are sums divided by the number of matched default boxes (positives) in the batch, or by 1
    if there is none. The network's outputs are cast to float32 first, for the reason, and with the
    consequence for the gradient, that :mod:`experiments.tasks.classification` gives. Nothing here
    waits for a device.

    Args:
        locs (~chainer.Variable): (n, boxes, 4), of the network.
        confs (~chainer.Variable): (n, boxes, classes + 1), of the network.
        target_locs (:ref:`ndarray`): (n, boxes, 4) in float32, see
            :class:`BoxMatcher`.
        targets (:ref:`ndarray`): (n, boxes) in int32, likewise.

    Returns:
        tuple of ~chainer.Variable: Smooth L1 loss of the positives' locations, and softmax cross
        entropy of positives and mined negatives.
    """
    xp = backend.get_array_module(targets)
    positive = targets != BACKGROUND
    scale = xp.asarray(1.0 / xp.maximum(positive.sum(), 1), numpy.float32)
    loc = functions.huber_loss(functions.cast(locs, 'float32'), target_locs, 1.0, reduce='no')
    loc = functions.sum(loc * positive.astype(numpy.float32)[..., None])
    confs = functions.reshape(functions.cast(confs, 'float32'), (-1, confs.shape[2]))
    conf = functions.softmax_cross_entropy(confs, targets.ravel(), reduce='no')
    chosen = positive | hard_negatives(conf.array.reshape(targets.shape), positive)
    conf = functions.sum(conf * chosen.ravel().astype(numpy.float32))
    return loc * scale, conf * scale


def hard_negatives(losses, positive):
    """Chooses of each image the negatives of highest loss, three for each positive.

    Args:
        losses (:ref:`ndarray`): (n, boxes): of each box as what it is.
        positive (:ref:`ndarray`): (n, boxes), bool.

    Returns:
        :ref:`ndarray`: (n, boxes), bool; all negatives if there are fewer.
    """
    xp = backend.get_array_module(losses)
    order = xp.argsort(xp.where(positive, -numpy.inf, losses), axis=1)[:, ::-1]
    count = _NEGATIVES_PER_POSITIVE * positive.sum(axis=1, keepdims=True)
    chosen = xp.empty(positive.shape, bool)
    chosen[xp.arange(len(order))[:, None], order] = xp.arange(order.shape[1]) < count
    return chosen & ~positive
