"""Many workers: before gradients are averaged, they agree on one total scale a parameter.

Each worker's layers choose scales of their own, so the same parameter's gradient carries a
different scale on each. Averaged as they are, the mean would be of no use. The workers agree as
:mod:`chainerlp.agreement` says. Where a layer itself exchanges gradients with other workers, such
as ``chainermn.links.MultiNodeBatchNormalization``, they do so there as well
(:mod:`chainerlp.communicating`).

Three things are left to the user. A function of one's own that calls a communicator in its backward
pass cannot be told from others: it puts together what carries different scales, and is right only
if the workers' scales are the same (:class:`~chainerlp.policies.Fixed`, and losses that are finite
on all). All workers have to be wrapped, or none. And what only one worker knows is not in another's
snapshot: to go on as if never interrupted, each loads its own.
"""

import hashlib

from chainerlp import agreement, joins, masters

import chainer
import numpy


def mean_gradients(optimizer, is_resumed=False):
    """Replaces the gradients of a multi-node optimizer's model by their mean over the workers.

    A gradient that is not finite on one worker makes the mean so on all. One that only some workers
    have counts as zero on the others.

    Args:
        optimizer: What ``chainermn.create_multi_node_optimizer`` returned.
        is_resumed (bool): Whether this worker has loaded a snapshot.

    Returns:
        bool: ``False`` if there was nothing to average: in the first call, and when parameters were
        added, the first worker's parameters go to all others instead, as ChainerMN does. Only if
        all workers are resumed, and have the same parameters, does such an update count: it was
        made with what the others have too.
    """
    target, communicator = optimizer.target, optimizer.communicator
    if optimizer.is_changed(target) and not _go_on_as_one(target, communicator, is_resumed):
        _distribute(target, communicator)
        return False
    model = _Distinct(target)
    _agree_on_scales(model.params(), communicator)
    communicator.multi_node_mean_grad(model, optimizer.zero_fill)
    return True


class _Distinct:
    """What ChainerMN asks of a model, with every initialized parameter once.

    A parameter in several places has several paths. ChainerMN would average it as often, and add up
    means that had fitted into the format.
    """

    def __init__(self, link):
        by_identity = {}
        for path, param in sorted(link.namedparams(), key=lambda pair: pair[0]):
            if param.array is not None:
                by_identity.setdefault(id(param), (path, param))
        self._namedparams = list(by_identity.values())

    def params(self):
        return [param for _, param in self._namedparams]

    def namedparams(self):
        return iter(self._namedparams)


def _go_on_as_one(target, communicator, is_resumed):
    """Returns whether all workers are resumed, and with the same parameters."""
    own = (is_resumed, [_fingerprint(param) for param in _Distinct(target).params()])
    everyones = communicator.mpi_comm.allgather(own)
    return all(resumed and found == own[1] for resumed, found in everyones)


def _distribute(target, communicator):
    """Gives all workers the first one's parameters."""
    communicator.bcast_data(target)
    masters.forget(target.params())


def _fingerprint(param):
    """Returns what tells a parameter, with its float32 copy, from others."""
    arrays = [param.array]
    rule = param.update_rule
    if rule is not None and rule._fp32_param is not None:
        arrays.append(rule._fp32_param.array)
    found = hashlib.blake2b(digest_size=16)
    for array in arrays:
        array = chainer.backend.CpuDevice().send(array)
        found.update(f'{array.dtype} {array.shape}'.encode())
        found.update(numpy.ascontiguousarray(array).data)
    return found.digest()


def _agree_on_scales(params, communicator):
    """Brings the gradients of each parameter to one scale on all workers."""
    magnitudes, scales = [], []
    for param in params:
        with chainer.using_device(param.device):
            has_gradient = param.grad is not None
            magnitudes.append(agreement.largest_magnitude(param.grad) if has_gradient else 0.0)
            scales.append(_scale(param) if has_gradient else None)
    dtypes = [_dtype_of_sum(param, communicator) for param in params]
    agreed = agreement.agree(magnitudes, scales, dtypes, communicator)
    seen = set()
    for param, scale, common in zip(params, scales, agreed):
        with chainer.using_device(param.device):
            if scale is not None:
                param.grad = _own(joins.rescale(param.grad, scale, common), seen)
            elif common is not None:
                param.grad = param.xp.zeros_like(param.array)
        param._loss_scale = common


def _own(array, seen):
    """Returns an array that can be averaged in place.

    A gradient may be a view, or be another parameter's too; ChainerMN would average a copy of the
    one and forget it, and average the other twice.
    """
    if id(array) in seen or not (array.flags.owndata and array.flags.c_contiguous):
        array = array.copy()
    seen.add(id(array))
    return array


def _dtype_of_sum(param, communicator):
    """Returns the narrowest dtype that a parameter's gradients have on their way to the mean."""
    if not hasattr(communicator, 'allreduce_grad_dtype'):
        return param.dtype
    # pure_nccl converts all gradients to one dtype.
    dtype = communicator.allreduce_grad_dtype
    dtype = chainer.get_dtype() if dtype is None else numpy.dtype(dtype)
    return min(param.dtype, dtype, key=lambda each: each.itemsize)


def _scale(param):
    return 1.0 if param._loss_scale is None else param._loss_scale
