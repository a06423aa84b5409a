"""Keeping float32 master copies in step with the float16 arrays that they are copies of."""

from chainerlp import float16 as rounding
from chainerlp import gpu as cuda

import numpy
from chainer import backend


def renew(masters, halves):
    """Makes float32 copies take over what was written to the float16 arrays since.

    A master that still rounds to its half has more digits than the half, and stays; where it does
    not, somebody changed the half.

    Args:
        masters (list of :ref:`ndarray`): Float32 arrays; they are changed in place.
        halves (list of :ref:`ndarray`): As many float16 arrays of the same shapes.
    """
    if not masters:
        return
    if backend.get_array_module(masters[0]) is not numpy:
        renew_on_device(masters, halves)
        return
    for master, half in zip(masters, halves):
        bits = rounding.from_float32(master, numpy.float16).view(numpy.uint16)
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
extern "C" __global__ void renew(Copies copies) {
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


def renew_on_device(masters, halves):
    """:func:`renew` by a kernel, launched once for every 100 arrays."""
    rows = []
    for master, half in zip(masters, halves):
        if master.flags.c_contiguous and half.flags.c_contiguous:
            rows.append((master, half, master.size))
        else:
            xp = backend.get_array_module(master)
            master[...] = xp.where(master.astype(half.dtype) == half, master, half)
    cuda.launch_for_each(_MASTERS, 'renew', _COPIES, rows)
