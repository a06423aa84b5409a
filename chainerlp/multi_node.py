"""Multi-node training with ChainerMN: total scales that all workers agree on.

Each worker's layers choose scales of their own. Where layers exchange gradients with other workers
in the backward pass (:func:`exchange_scales`), the workers agree on a common scale (:func:`agree`)
and bring their gradients to it; likewise before true gradients are averaged in less than float32
(:func:`mean_gradients`).

What is left to the user:

- A function of one's own that calls a communicator in its backward pass cannot be told from others.
  It is right only if all workers' scales are the same (:class:`~chainerlp.policies.Fixed`, and
  losses that are finite on all).
- All workers have to be wrapped, or none.
- Each worker resumes from its own snapshot: what only one worker knows is not in another's.
"""

import dataclasses
import functools
import hashlib
import inspect

from chainerlp import formats, master_weights
from chainerlp.compat.patching import patch
from chainerlp.gpu import on_gpu
from chainerlp.scaled_array import (
    MARGIN,
    ScaledArray,
    common_scale,
)
from chainerlp.statistics import largest_magnitude
from chainerlp.true_gradients import gradient_of, set_true_gradient, true_sum

import chainer
import numpy
from chainer import backend
from chainer.backends import cuda
from chainer.training import updaters

# ChainerMN's functions are known by name, since importing ChainerMN takes an MPI.
_COMMUNICATING = 'AllGather AllToAll Bcast Gather MultiNodeBNImplSelector Recv Scatter Send'.split()
# Its reciprocal is a normal number of float32, in which it is applied.
_LARGEST_SCALE = 1 / formats.FLOAT32.smallest_normal


def mean_gradients(optimizer, passes=(), is_resumed=False):
    """Replaces the gradients of a multi-node optimizer's model by their mean over the workers.

    A gradient that is not finite on one worker makes the mean so on all. One that only some workers
    have counts as zero on the others.

    Args:
        optimizer: What ``chainermn.create_multi_node_optimizer`` returned.
        passes (list of ~chainerlp.overflow.BackwardPass): Those that the gradients are of.
        is_resumed (bool): Whether this worker has loaded a snapshot.

    Returns:
        tuple: ``False`` if nothing was averaged: in the first call, and when parameters were added,
        the first worker's parameters go to all others instead, as ChainerMN does. If all workers
        are resumed, with the same parameters, the first call averages too: its gradients were made
        with these. And the passes, whose losses are finite if they are on all workers.
    """
    target, communicator = optimizer.target, optimizer.communicator
    if optimizer.is_changed(target) and not _go_on_as_one(target, communicator, is_resumed):
        communicator.bcast_data(target)
        master_weights.discard(target.params())
        return False, passes
    model = _DistinctParameters(target)
    params = model.params()
    finite = all(bool(each.loss_is_finite) for each in passes)
    own = (finite, [gradient_of(param) is not None for param in params])
    everyones = communicator.mpi_comm.allgather(own)
    finite = all(is_finite for is_finite, _ in everyones)
    wanted = [any(has) for has in zip(*(has_gradient for _, has_gradient in everyones))]
    _set_true_gradients(params, wanted)
    scaled = _scale_narrow_gradients(params, communicator)
    communicator.multi_node_mean_grad(model, optimizer.zero_fill)
    for param, scale in scaled:
        with chainer.using_device(param.device):
            set_true_gradient(param, ScaledArray(param.grad, scale).true())
    return True, [dataclasses.replace(each, loss_is_finite=finite) for each in passes]


class _DistinctParameters:
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
    own = (is_resumed, [_fingerprint(param) for param in _DistinctParameters(target).params()])
    everyones = communicator.mpi_comm.allgather(own)
    return all(resumed and found == own[1] for resumed, found in everyones)


def _fingerprint(param):
    """Returns a hash of a parameter and its float32 master copy."""
    arrays = [param.array]
    rule = param.update_rule
    if rule is not None and rule._fp32_param is not None:
        arrays.append(rule._fp32_param.array)
    found = hashlib.blake2b(digest_size=16)
    for array in arrays:
        array = backend.CpuDevice().send(array)
        found.update(f'{array.dtype} {array.shape}'.encode())
        found.update(numpy.ascontiguousarray(array).data)
    return found.digest()


def _set_true_gradients(params, wanted):
    """Gives each parameter that some worker has a gradient of a true one; zero if it has none."""
    seen = set()
    for param, is_wanted in zip(params, wanted):
        with chainer.using_device(param.device):
            gradient = gradient_of(param)
            if gradient is not None:
                set_true_gradient(param, _writable(true_sum([gradient]), seen))
            elif is_wanted:
                dtype = numpy.promote_types(param.dtype, numpy.float32)
                set_true_gradient(param, param.xp.zeros(param.shape, dtype))


def _scale_narrow_gradients(params, communicator):
    """Scales true gradients that are averaged in less than float32, so that they can be.

    Returns:
        list of tuple: Each of these parameters and the scale of its gradient: the largest power of
        two at which the sum fits, the same on all workers.
    """
    dtypes = [_dtype_of_sum(param, communicator) for param in params]
    narrow = [(p, d) for p, d in zip(params, dtypes) if p.grad is not None and d.itemsize < 4]
    if not narrow:
        return []
    magnitudes = []
    for param, _ in narrow:
        with chainer.using_device(param.device):
            magnitudes.append(largest_magnitude(param.grad))
    limits = [_largest_sum(dtype, communicator.size) for _, dtype in narrow]
    with numpy.errstate(all='ignore'):
        total = _gathered(magnitudes, communicator).sum(axis=0)
        fits = formats.floor_power_of_two(numpy.minimum(limits / total, _LARGEST_SCALE))
    # What is not finite stays so at any scale.
    scales = numpy.where(numpy.isfinite(total), fits, 1.0).tolist()
    scaled = [(param, scale) for (param, _), scale in zip(narrow, scales)]
    for param, scale in scaled:
        with chainer.using_device(param.device):
            param.grad *= scale
    return scaled


def _dtype_of_sum(param, communicator):
    """Returns the narrowest dtype that a parameter's gradients have on their way to the mean."""
    own = numpy.promote_types(param.dtype, numpy.float32)
    if not hasattr(communicator, 'allreduce_grad_dtype'):
        return own
    # pure_nccl converts all gradients to one dtype.
    dtype = communicator.allreduce_grad_dtype
    dtype = chainer.get_dtype() if dtype is None else numpy.dtype(dtype)
    return min(own, dtype, key=lambda each: each.itemsize)


def _writable(array, seen):
    """Returns an array, or a copy of it, that can be averaged in place.

    A gradient may be a view, or be another parameter's too; ChainerMN would average a copy of the
    one and forget it, and average the other twice.
    """
    if id(array) in seen or not (array.flags.owndata and array.flags.c_contiguous):
        array = array.copy()
    seen.add(id(array))
    return array


def communicates(function):
    """Returns whether a function's backward pass exchanges gradients with other workers.

    Known are ChainerMN's: ``MultiNodeBatchNormalization``, ``allgather``, ``alltoall``, ``bcast``,
    ``gather``, ``scatter``, ``send`` and ``recv``.

    Args:
        function (~chainer.FunctionNode): Any function of a graph.
    """
    return _communicating_part(function) is not None


def exchange_scales(function, gradients, margin=MARGIN):
    """Brings gradients to the scale that the workers at a function's other ends bring theirs to.

    Collective functions put together what comes from all workers, so these agree on a scale first;
    ``recv`` sends gradients back to where ``send`` was called, and the scale before them. To
    exchange a scale, a worker on a GPU has to wait for the device.

    Args:
        function (~chainer.FunctionNode): One that :func:`communicates`.
        gradients (list of ~chainerlp.scaled_array.ScaledArray): The gradients of its outputs, all
            at one scale.
        margin (float): As for :func:`agree`.

    Returns:
        tuple: The list of gradients, and the total scale that the gradients of the function's
        inputs will carry.
    """
    kind, part = _communicating_part(function)
    scale = gradients[0].scale
    if kind == 'Recv':
        part.comm.send_obj(float(scale), part.peer_rank, part.peer_tag)
        return gradients, scale
    if kind == 'Send':  # what it returned is an empty variable, and so is the gradient of that
        return gradients, part.comm.recv_obj(part.peer_rank, tag=part.peer_tag)
    arrays = [gradient.array for gradient in gradients]
    xp = backend.get_array_module(*arrays)
    largest = functools.reduce(xp.maximum, map(largest_magnitude, arrays))
    dtype = min((array.dtype for array in arrays), key=lambda each: each.itemsize)
    common = agree(largest, scale, dtype, part.comm, margin)
    return [gradient.to(common) for gradient in gradients], common


def _communicating_part(function):
    """Returns what of ChainerMN communicates in a function, after the name of its class."""
    # ChainerMN's are old-style functions, or choose how batch normalization is computed.
    for part in (getattr(function, 'function', None), getattr(function, '_impl_selector', None)):
        for kind in type(part).__mro__:
            if kind.__name__ in _COMMUNICATING and kind.__module__.startswith('chainermn.'):
                return kind.__name__, part
    return None


def agree(magnitude, scale, dtype, communicator, margin=MARGIN):
    """Agrees with the other workers on a total scale for a gradient that all of them have.

    The rule is that of joins (:func:`~chainerlp.scaled_array.align`), across workers: the scale of
    the largest true gradient, or a larger one of theirs as far as it leaves the sum of their
    largest magnitudes under 1; but none at which that sum leaves less room in the format than the
    margin. The smallest dtype and the largest margin of all workers count.

    All workers call it alike. It takes one message of three numbers; on a GPU it waits for the
    device, once.

    Args:
        magnitude (float or 0-d array): The largest magnitude in what the gradient holds, its scale
            included.
        scale (float or 0-d array): The total scale that it carries.
        dtype (numpy.dtype): What the gradients are added up in.
        communicator (~chainermn.CommunicatorBase): The workers.
        margin (float): Powers of two between the sum and the largest number of the format.

    Returns:
        float: The scale, the same on all workers.
    """
    limit = _largest_sum(dtype, communicator.size) * 2.0**-margin
    everyones = _gathered([magnitude, scale, limit], communicator)
    magnitudes, scales, limits = everyones.T.tolist()
    return common_scale(magnitudes, scales, min(limits))


def _largest_sum(dtype, workers):
    # Each worker's share is rounded when it is rescaled, and so is each of the sums after it.
    number_format = formats.get(numpy.dtype(dtype).name)
    return number_format.largest * (1 - number_format.relative_rounding) ** workers


def _gathered(values, communicator):
    """Returns every worker's numbers or 0-d arrays, a row each; the device is waited for once.

    They are sent from host memory, so that any MPI will do.
    """
    arrays = [value for value in values if on_gpu(value)]
    if arrays:
        with chainer.using_device(backend.get_device_from_array(arrays[0])):
            together = cuda.cupy.stack([array.astype(numpy.float64) for array in arrays])
            fetched = iter(backend.CpuDevice().send(together).tolist())
    own = numpy.array([next(fetched) if on_gpu(value) else float(value) for value in values])
    everyones = numpy.empty((communicator.size, len(own)))
    communicator.mpi_comm.Allgather(own, everyones)
    return everyones


def refuse_parallel_updaters(wrapper):
    """Makes ``ParallelUpdater`` and ``MultiprocessParallelUpdater`` refuse a wrapped optimizer.

    They run ``loss.backward()`` on each device, in which no layer is scaled. The error comes when
    one is made: in the first update, ``MultiprocessParallelUpdater`` has started processes that
    would wait for each other forever.

    Args:
        wrapper (type): The class of wrapped optimizers.
    """

    def checked(init):
        def checked_init(self, *args, **kwargs):
            given = inspect.signature(init).bind_partial(self, *args, **kwargs).arguments
            optimizer = given.get('optimizer')
            optimizers = optimizer.values() if isinstance(optimizer, dict) else [optimizer]
            if any(isinstance(each, wrapper) for each in optimizers):
                raise RuntimeError(
                    f'{init.__module__.rpartition(".")[-1]} runs loss.backward(), in which no layer'
                    ' is scaled: use ChainerMN,'
                    ' AdaptiveLossScaling(create_multi_node_optimizer(...)), under mpiexec, or one'
                    ' device and a StandardUpdater'
                )
            init(self, *args, **kwargs)

        return checked_init

    for updater in (updaters.ParallelUpdater, updaters.MultiprocessParallelUpdater):
        patch(updater, '__init__', checked)
