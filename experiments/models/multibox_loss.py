"""The loss of SSD: where the objects are, and what they are.

Liu et al. 2016, equations 1 to 3 with alpha = 1, and "Hard negative mining".
"""

from experiments.models.box_matching import BACKGROUND

import numpy
from chainer import backend, functions

_NEGATIVES_PER_POSITIVE = 3


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
            :class:`~experiments.models.box_matching.BoxMatcher`.
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
