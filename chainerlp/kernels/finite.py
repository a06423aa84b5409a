"""Whether gradients are finite."""

from chainerlp.kernels import cuda

import numpy
from chainer import backend


def all_finite(array):
    """Returns whether an array has neither inf nor NaN, as a bool (NumPy) or a 0-d bool array."""
    if isinstance(array, numpy.ndarray) and array.dtype == numpy.float16:
        exponent = array.view(numpy.uint16) & numpy.uint16(0x7C00)
        return bool((exponent != 0x7C00).all())
    return backend.get_array_module(array).isfinite(array).all()


def all_arrays_finite(arrays):
    """Returns whether none of some arrays has an inf or a NaN.

    Args:
        arrays (list of :ref:`ndarray`): Float arrays of any shapes, all on one device.

    Returns:
        bool or 0-d bool array: The answer; a bool for NumPy arrays, or for none.
    """
    if not arrays or isinstance(arrays[0], numpy.ndarray):
        return all(all_finite(array) for array in arrays)
    return all_finite_on_device(arrays)


# What a kernel can be given by value is limited to 4 KiB.
ARRAYS_A_LAUNCH = 200

_FINITE = r"""
struct Arrays {
    const void* at[200];
    index_t size[200];
    unsigned char bytes[200];  // of an element
};

__device__ inline bool is_finite(half_bits x) { return (x & 0x7c00) != 0x7c00; }
__device__ inline bool is_finite(float x) { return (bits_of(x) & 0x7f800000u) != 0x7f800000u; }
__device__ inline bool is_finite(double x) { return x - x == 0; }

struct Finite {
    bool answer;
    template <typename T> __device__ void chunk(const T* x, int size) {
        #pragma unroll
        for (int i = 0; i < size; ++i) answer &= is_finite(x[i]);
    }
};

// Each row of the grid looks at one array.
extern "C" __global__ void find_nonfinite(Arrays arrays, bool* all_finite) {
    const int k = blockIdx.y;
    Finite finite = {true};
    if (arrays.bytes[k] == 2) for_all((const half_bits*)arrays.at[k], arrays.size[k], finite);
    if (arrays.bytes[k] == 4) for_all((const float*)arrays.at[k], arrays.size[k], finite);
    if (arrays.bytes[k] == 8) for_all((const double*)arrays.at[k], arrays.size[k], finite);
    if (!finite.answer) *all_finite = false;  // whoever writes it writes the same
}
"""
_ARRAYS = numpy.dtype(
    [
        ('at', numpy.uint64, ARRAYS_A_LAUNCH),
        ('size', numpy.int64, ARRAYS_A_LAUNCH),
        ('bytes', numpy.uint8, ARRAYS_A_LAUNCH),
    ]
)


def all_finite_on_device(arrays):
    """:func:`all_arrays_finite` by a kernel, launched once for every 200 arrays."""
    xp = backend.get_array_module(arrays[0])
    answer = xp.ones((), numpy.bool_)
    rows = [cuda.contiguous(array) for array in arrays]
    rows = [(row, row.size, row.itemsize) for row in rows]
    cuda.launch_for_each(_FINITE, 'find_nonfinite', _ARRAYS, rows, answer)
    return answer
