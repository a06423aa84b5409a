"""Updates on a GPU, which the device itself takes back where a gradient was not finite.

To decide on the host whether to update, it would have to wait until the backward pass is done, and
the device would idle while the update is prepared. So the update is made in any case: what it
writes to is copied before, and a kernel that knows whether all gradients were finite puts the
copies back afterwards if they were not. The host learns of it when it comes to the next update.
"""

from chainerlp import gpu
from chainerlp.gpu import on_gpu

import numpy
from chainer import backend


def is_possible(params):
    """Returns whether an update of parameters can be taken back by the device.

    All have to be on one GPU, and have been updated before, so that the optimizer's state is there.

    Args:
        params (list of ~chainer.Parameter): The parameters that an update changes.
    """
    if not params or any(param.device != params[0].device for param in params):
        return False
    return on_gpu(params[0].array) and all(p.update_rule.state is not None for p in params)


def run(params, update, is_finite):
    """Updates parameters, and takes it back on the device where gradients were not finite.

    Args:
        params (list of ~chainer.Parameter): Parameters for which it :func:`is_possible`; float16
            ones hold their master weights (:func:`chainerlp.master_weights.substituted`).
        update (callable): Updates them.
        is_finite (0-d bool array): Whether their gradients are finite.

    Returns:
        list of tuple: What update rules hold besides arrays, to be restored if it was taken back.
    """
    places = [place for param in params for place in _places(param)]
    copies = copies_of([place() for place in places])
    attributes = [(param.update_rule, _counters(param.update_rule)) for param in params]
    update()
    copy_unless(is_finite, [place() for place in places], copies)
    return attributes


class PendingUpdate:
    """An update of which only the device knows whether it was taken back.

    Args:
        is_finite (0-d bool array): Whether all gradients were finite.
        is_saturated (0-d bool array): Whether a parameter left float16's range.
        attributes (list of tuple): What :func:`run` returned.
        passes (list of ~chainerlp.overflow.BackwardPass): Those that the gradients are of.
        is_stale (bool): Whether the pass was begun before the host knew of an overflow.

    Attributes:
        passes: See above.
        is_stale: See above.
    """

    def __init__(self, is_finite, is_saturated, attributes, passes, is_stale):
        self.passes = passes
        self.is_stale = is_stale
        self._attributes = attributes
        self._flags, self._has_arrived = (is_finite, is_saturated), None
        if on_gpu(is_finite):
            self._flags, self._has_arrived = _sent_to_host(self._flags)

    def wait(self):
        """Finds out what became of it, and takes back what the host had counted.

        It waits only if the host is more than an update ahead of the device.

        Returns:
            tuple of bool: Whether a gradient was not finite, and whether a parameter was saturated.
        """
        if self._has_arrived is not None and not self._has_arrived.done:
            self._has_arrived.synchronize()
        is_finite, is_saturated = map(bool, self._flags)
        if not is_finite:
            for rule, counters_before in self._attributes:
                vars(rule).update(counters_before)
        return not is_finite, is_saturated and is_finite


def _sent_to_host(flags):
    import cupy
    import cupyx

    on_host = [cupyx.empty_pinned(flag.shape, flag.dtype) for flag in flags]
    for flag, target in zip(flags, on_host):
        flag.get(stream=cupy.cuda.get_current_stream(), out=target, blocking=False)
    has_arrived = cupy.cuda.Event(disable_timing=True)
    has_arrived.record()
    return on_host, has_arrived


def _places(param):
    """Yields functions that return the arrays that an update of a parameter writes to."""
    yield lambda: param.array
    state = param.update_rule.state
    for key, value in state.items():
        if isinstance(value, param.device.supported_array_types):
            yield lambda key=key: state[key]


def _counters(rule):
    """Returns the numbers that an update rule counts on the host, such as ``t``."""
    return {name: value for name, value in vars(rule).items() if type(value) in (int, float)}


def copies_of(arrays):
    """Returns copies of arrays, all on one device; on a GPU by one kernel for every 100.

    Args:
        arrays (list of :ref:`ndarray`): Arrays of any shapes and dtypes.
    """
    if not arrays:
        return []
    xp = backend.get_array_module(arrays[0])
    copies = [xp.empty_like(array) for array in arrays]
    copy_unless(False, copies, arrays)
    return copies


def copy_unless(is_right, targets, copies):
    """Copies arrays to others, unless these are right as they are; on a GPU by one kernel for 100.

    Args:
        is_right (bool or 0-d bool array): Nothing is done if it is true; an array on the device
            stays there.
        targets (list of :ref:`ndarray`): What is written to.
        copies (list of :ref:`ndarray`): As many arrays, of the same shapes and dtypes.
    """
    if not targets:
        return
    if on_gpu(targets[0]):
        _copy_unless_on_gpu(is_right, targets, copies)
    elif not is_right:
        for target, copy in zip(targets, copies):
            numpy.copyto(target, copy)


_ARRAYS_A_LAUNCH = 100

_COPYING = r"""
struct Copies {
    unsigned char* to[100];
    const unsigned char* from[100];
    index_t bytes[100];
};

// Each row of the grid copies one array.
extern "C" __global__ void copy_unless(Copies copies, const bool* is_right) {
    if (is_right && *is_right) return;
    const int k = blockIdx.y;
    unsigned char* to = copies.to[k];
    const unsigned char* from = copies.from[k];
    const index_t bytes = copies.bytes[k];
    index_t done = 0;
    if (is_aligned(to) && is_aligned(from)) {
        #pragma unroll 4
        for (index_t i = first_index(); i < bytes / 16; i += all_threads())
            ((Chunk<unsigned char>*)to)[i] = ((const Chunk<unsigned char>*)from)[i];
        done = bytes / 16 * 16;
    }
    for (index_t i = done + first_index(); i < bytes; i += all_threads()) to[i] = from[i];
}
"""
_COPIES = numpy.dtype(
    [
        ('to', numpy.uint64, _ARRAYS_A_LAUNCH),
        ('from', numpy.uint64, _ARRAYS_A_LAUNCH),
        ('bytes', numpy.int64, _ARRAYS_A_LAUNCH),
    ]
)


def _copy_unless_on_gpu(is_right, targets, copies):
    if is_right is True:
        return
    rows = []
    for target, copy in zip(targets, copies):
        if target.strides == copy.strides and _has_no_gaps(target):
            rows.append((target, copy, target.nbytes))
        else:  # a parameter that is a part of another array, say
            xp = backend.get_array_module(target)
            target[...] = copy if is_right is False else xp.where(is_right, target, copy)
    flag = None if is_right is False else is_right
    gpu.launch_for_each(_COPYING, 'copy_unless', _COPIES, rows, flag)


def _has_no_gaps(array):
    return array.flags.c_contiguous or array.flags.f_contiguous
