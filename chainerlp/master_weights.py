"""Master weights: float32 copies of float16 parameters, which updates are made in.

Chainer's ``use_fp32_update`` keeps one in each update rule, makes it at the first update, and
leaves it out of snapshots.
"""

from chainerlp import gpu
from chainerlp.float16 import from_float32
from chainerlp.gpu import on_gpu

import chainer
import numpy
from chainer import backend


def synchronize(params):
    """Makes the master weights hold what their parameters do, before an update.

    Where a parameter was changed since the last update (clipped, loaded, averaged), its master
    takes the new values over; Chainer would undo the change. Parameters that share an array
    (``copy(mode='share')``) share a master; with Chainer's, one each, the last one's update would
    win.

    Args:
        params (iterable of ~chainer.Parameter): The parameters.
    """
    first_of_array, pairs_by_device = {}, {}
    for param in params:
        rule = param.update_rule
        if rule is None or param.array is None or param.dtype != numpy.float16:
            continue
        first = first_of_array.setdefault(id(param.array), param)
        if first is not param:
            rule._fp32_param = _shared_master(first)
        elif rule._fp32_param is not None and rule._fp32_param.array is not None:
            pair = (rule._fp32_param.array, param.array)
            pairs_by_device.setdefault(param.device, []).append(pair)
    for device, pairs in pairs_by_device.items():
        with chainer.using_device(device):
            take_over_changes(*zip(*pairs))


def _shared_master(param):
    rule = param.update_rule
    if rule._fp32_param is None:
        rule._fp32_param = chainer.Parameter(param.array.astype(numpy.float32), name=param.name)
    return rule._fp32_param


def take_over_changes(masters, halves):
    """Makes float32 copies take over what was written to the float16 arrays since.

    A master that still rounds to its half has more digits than the half, and stays; where it does
    not, somebody changed the half.

    Args:
        masters (list of :ref:`ndarray`): Float32 arrays; they are changed in place.
        halves (list of :ref:`ndarray`): As many float16 arrays of the same shapes.
    """
    if not masters:
        return
    if on_gpu(masters[0]):
        _take_over_changes_on_gpu(masters, halves)
        return
    for master, half in zip(masters, halves):
        bits = from_float32(master, numpy.float16).view(numpy.uint16)
        is_changed = bits != half.view(numpy.uint16)
        if is_changed.any():
            master[is_changed] = half[is_changed]


_ARRAYS_A_LAUNCH = 100

_MASTERS = r"""
struct Copies {
    float* master[100];
    const half_bits* half[100];
    index_t size[100];
};

// Each row of the grid looks at one array.
extern "C" __global__ void take_over_changes(Copies copies) {
    float* master = copies.master[blockIdx.y];
    const half_bits* half = copies.half[blockIdx.y];
    for (index_t i = first_index(); i < copies.size[blockIdx.y]; i += all_threads()) {
        half_bits rounded;
        store(master[i], &rounded);
        if (rounded != half[i]) master[i] = value_of(half[i]);
    }
}
"""
_COPIES = numpy.dtype(
    [
        ('master', numpy.uint64, _ARRAYS_A_LAUNCH),
        ('half', numpy.uint64, _ARRAYS_A_LAUNCH),
        ('size', numpy.int64, _ARRAYS_A_LAUNCH),
    ]
)


def _take_over_changes_on_gpu(masters, halves):
    rows = []
    for master, half in zip(masters, halves):
        if master.flags.c_contiguous and half.flags.c_contiguous:
            rows.append((master, half, master.size))
        else:
            xp = backend.get_array_module(master)
            master[...] = xp.where(master.astype(half.dtype) == half, master, half)
    gpu.launch_for_each(_MASTERS, 'take_over_changes', _COPIES, rows)


def discard(params):
    """Drops the master weights: they are made anew from the parameters."""
    for param in params:
        if param.update_rule is not None:
            param.update_rule._fp32_param = None


def serialize(serializer, model):
    """Saves or loads the master weights of a model.

    One that a snapshot does not have is discarded, and made anew by the next update: one of later
    than the snapshot would undo it.

    Args:
        serializer (~chainer.AbstractSerializer): Where to, or from.
        model (~chainer.Link): The model of an optimizer that has been set up.
    """
    for path, param in model.namedparams():
        rule = param.update_rule
        if rule is None:
            continue
        key = path.lstrip('/')  # HDF5 takes a slash in front for the root of the file
        if isinstance(serializer, chainer.Deserializer):
            array = serializer(key, None)
            has_master = array is not None and array.size > 0
            rule._fp32_param = (
                chainer.Parameter(param.device.send(array), name=param.name) if has_master else None
            )
        else:
            master = rule._fp32_param
            has_none = master is None or master.array is None
            serializer(key, numpy.empty(0, numpy.float32) if has_none else master.array)
