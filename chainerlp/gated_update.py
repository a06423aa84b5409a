"""Updates on a GPU, which the device itself takes back where a gradient was not finite.

To decide on the host whether to update, it would have to wait until the backward pass is done, and
the device would idle while the update is prepared. So the update is made in any case: what it
writes to is copied before, and a kernel that knows whether all gradients were finite puts the
copies back afterwards if they were not. The host learns of it when it comes to the next update.
"""

import dataclasses

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
    return on_gpu(params[0].array) and all(map(_has_been_updated, params))


def _has_been_updated(param):
    rule = param.update_rule
    has_master = rule._fp32_param is not None or param.dtype != numpy.float16
    return rule.state is not None and (has_master or not rule._use_fp32_update)


def run(params, update, is_finite, loss_is_finite=True, is_stale=False):
    """Updates parameters, and takes it back on the device where gradients were not finite.

    Args:
        params (list of ~chainer.Parameter): Parameters for which it :func:`is_possible`.
        update (callable): Updates them.
        is_finite (0-d bool array): Whether their gradients are finite.
        loss_is_finite (bool or 0-d bool array): Whether the loss is.
        is_stale (bool): Whether the pass was begun before the host knew of an overflow.

    Returns:
        PendingUpdate: What became of it.
    """
    places = [place for param in params for place in _places(param)]
    before = [place.array for place in places]
    is_kept = [place.is_replaced for place in places]
    copies = iter(copies_of([a for a, kept in zip(before, is_kept) if not kept]))
    copies = [array if kept else next(copies) for array, kept in zip(before, is_kept)]
    update()
    copy_unless(is_finite, [place.array for place in places], copies)
    return PendingUpdate(params, is_finite, loss_is_finite, is_stale)


class PendingUpdate:
    """An update of which only the device knows whether it was taken back.

    Attributes:
        is_stale (bool): Whether the pass was begun before the host knew of an overflow.
    """

    def __init__(self, params, is_finite, loss_is_finite, is_stale):
        self.is_stale = is_stale
        self._params = params
        self._loss_is_finite = loss_is_finite
        self._is_finite, self._has_arrived = is_finite, None
        if on_gpu(is_finite):
            self._is_finite, self._has_arrived = _sent_to_host(is_finite)

    def wait(self):
        """Finds out what became of it, and takes back what the host had counted.

        It waits only if the host is more than an update ahead of the device.

        Returns:
            tuple of bool: Whether a gradient was not finite, and whether the loss was finite.
        """
        if self._has_arrived is not None and not self._has_arrived.done:
            self._has_arrived.synchronize()
        if self._is_finite:
            return False, True
        for param in self._params:
            param.update_rule.t -= 1
        return True, bool(self._loss_is_finite)


def _sent_to_host(flag):
    import cupy
    import cupyx

    on_host = cupyx.empty_pinned(flag.shape, flag.dtype)
    flag.get(stream=cupy.cuda.get_current_stream(), out=on_host, blocking=False)
    has_arrived = cupy.cuda.Event(disable_timing=True)
    has_arrived.record()
    return on_host, has_arrived


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where an update writes to; an update may put another array there."""

    holder: object
    key: str
    is_replaced: bool = False  # whether it always does, so that the old one needs no copy

    @property
    def array(self):
        return self.holder[self.key] if self.key is not None else self.holder.array


def _places(param):
    rule = param.update_rule
    has_master = rule._use_fp32_update and param.dtype == numpy.float16
    yield _Place(param, None, is_replaced=has_master)
    if has_master:
        yield _Place(rule._fp32_param, None)
    for key, value in rule.state.items():
        if isinstance(value, param.device.supported_array_types):
            yield _Place(rule.state, key)


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
