"""Copying many arrays, and putting them back where the device says so."""

from chainerlp import gpu as cuda

import numpy
from chainer import backend


def copied(arrays):
    """Returns copies of arrays, all on one device; on a GPU by one kernel for every 100.

    Args:
        arrays (list of :ref:`ndarray`): Arrays of any shapes and dtypes.
    """
    if not arrays:
        return []
    xp = backend.get_array_module(arrays[0])
    copies = [xp.empty_like(array) for array in arrays]
    put_back(False, copies, arrays)
    return copies


def put_back(is_right, targets, copies):
    """Copies arrays back to where they came from, unless that is right as it is.

    Args:
        is_right (bool or 0-d bool array): Nothing is done where it is true; an array on the device
            stays there.
        targets (list of :ref:`ndarray`): What is written to.
        copies (list of :ref:`ndarray`): As many arrays, of the same shapes and dtypes.
    """
    if not targets:
        return
    if backend.get_array_module(targets[0]) is not numpy:
        put_back_on_device(is_right, targets, copies)
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


def put_back_on_device(is_right, targets, copies):
    """:func:`put_back` by a kernel, launched once for every 100 arrays."""
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
    cuda.launch_for_each(_COPYING, 'copy_unless', _COPIES, rows, flag)


def _has_no_gaps(array):
    return array.flags.c_contiguous or array.flags.f_contiguous
