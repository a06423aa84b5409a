"""Many workers: before gradients are averaged, they agree on one total scale a parameter.

Each worker's layers choose scales of their own, so the same parameter's gradient carries a
different scale on each. Averaged as they are, the mean would be of no use.
"""

from chainerlp import joins

import chainer
import numpy

_NO_GRADIENT = numpy.inf


def mean_gradients(optimizer):
    """Replaces the gradients of a multi-node optimizer's model by their mean over the workers.

    A gradient that is not finite on one worker makes the mean so on all.

    Args:
        optimizer: What ``chainermn.create_multi_node_optimizer`` returned.

    Returns:
        bool: ``False`` if there was nothing to average: in the first call, and when parameters were
        added, the first worker's parameters go to all others instead, as ChainerMN does.
    """
    target, communicator = optimizer.target, optimizer.communicator
    if optimizer.is_changed(target):
        communicator.bcast_data(target)
        for param in target.params():
            param.update_rule._fp32_param = None  # made anew from what was received
        return False
    params = [param for _, param in sorted(target.namedparams()) if param.array is not None]
    _agree_on_scales(params, communicator)
    communicator.multi_node_mean_grad(target, optimizer.zero_fill)
    return True


def _agree_on_scales(params, communicator):
    """Brings each gradient to the smallest scale that any worker has for it, which is safe on all.

    Takes one message of a number a parameter.
    """
    if not params:
        return
    xp = params[0].xp
    with chainer.using_device(params[0].device):
        scales = [_scale(param) for param in params]
        if xp is not numpy:
            scales = [xp.asarray(scale, numpy.float64) for scale in scales]
        own = xp.stack(scales) if xp is not numpy else numpy.array(scales, numpy.float64)
        agreed = xp.stack(communicator.allgather(own)).min(axis=0)
        for param, scale, common in zip(params, scales, agreed):
            common = float(common) if xp is numpy else common
            if param.grad is not None:
                param.grad = joins.rescale(param.grad, scale, common)
            param._loss_scale = common


def _scale(param):
    if param.grad is None:
        return _NO_GRADIENT
    return 1.0 if param._loss_scale is None else param._loss_scale
