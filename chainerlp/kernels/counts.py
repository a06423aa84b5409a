"""Counting the elements of an array by magnitude."""

from chainerlp import formats
from chainerlp.kernels import cuda

import numpy
from chainer import backend

_SINGLE = formats.FLOAT32
_EXPONENT_FIELD = 2**_SINGLE.exponent_bits  # how many values it has
_EXPONENT_BIAS = _SINGLE.bias
_MANTISSA_BITS = _SINGLE.mantissa_bits


def exponent_counts(array):
    """Counts the nonzero elements of a float32 array between the powers of two.

    Args:
        array (:ref:`ndarray`): A float32 array of any shape.

    Returns:
        :ref:`ndarray`: 256 integers; number ``i`` counts the elements with
        2^(i - 127) < |x| <= 2^(i - 126). The upper end belongs to the interval, as a tie with
        the smallest subnormal's half rounds to zero. Inf is counted in number 254, NaN in 255,
        float32's subnormals in 0.
    """
    if backend.get_array_module(array) is not numpy:
        return exponent_counts_on_device(array)
    bits = (array.view(numpy.int32) & numpy.int32(0x7FFFFFFF)).ravel()
    field = (bits - 1) >> _MANTISSA_BITS  # -1 for zero
    return numpy.bincount(field + 1, minlength=_EXPONENT_FIELD + 1)[1:]


_COUNTS = r"""
// By the exponent of the next number towards zero; zero itself is number 0.
extern "C" __global__ void count_exponents(const float* x, index_t size, index_t* partial) {
    __shared__ unsigned counts[257];
    for (int i = threadIdx.x; i < 257; i += THREADS) counts[i] = 0;
    __syncthreads();
    for (index_t i = first_index(); i < size; i += all_threads())
        atomicAdd(&counts[((int)(bits_of(x[i]) & 0x7fffffffu) - 1 >> 23) + 1], 1u);
    __syncthreads();
    for (int i = threadIdx.x; i < 257; i += THREADS) partial[257 * blockIdx.x + i] = counts[i];
}
"""


def exponent_counts_on_device(array):
    """:func:`exponent_counts` by a kernel; CuPy's ``bincount`` would wait for the device."""
    xp = backend.get_array_module(array)
    row = cuda.contiguous(array)
    blocks = cuda.blocks_for(row)
    partial = xp.empty((blocks, _EXPONENT_FIELD + 1), numpy.int64)
    cuda.launch(_COUNTS, 'count_exponents', blocks, row, row.size, partial)
    return partial.sum(axis=0)[1:]


def magnitude_counts(array, lowest, highest):
    """Counts the elements of a float32 array by log2 of their magnitude: a histogram.

    Args:
        array (:ref:`ndarray`): A float32 array of any shape.
        lowest (int): The first bin begins above 2^lowest; from -126.
        highest (int): The last bin ends with 2^highest; up to 127.

    Returns:
        :ref:`ndarray`: ``highest - lowest + 4`` integers, which add up to the size of the array:
        the zeros; the nonzero up to 2^lowest; then the bins, of which number ``k`` (from 0) has
        2^(lowest + k) < |x| <= 2^(lowest + k + 1); those above 2^highest, inf included; the NaNs.
    """
    xp = backend.get_array_module(array)
    counts = exponent_counts(array)
    first, end = lowest + _EXPONENT_BIAS, highest + _EXPONENT_BIAS
    ends = [array.size - counts.sum(), counts[:first].sum(), counts[end:-1].sum(), counts[-1]]
    zero, below, above, nan = (xp.reshape(count, 1) for count in ends)
    return xp.concatenate([zero, below, counts[first:end], above, nan])


def smallest_shift(counts, threshold, rate):
    """Returns the power of two that leaves at most a share of elements at or below a threshold.

    Args:
        counts (:ref:`ndarray`): What :func:`exponent_counts` returned.
        threshold (float): A power of two.
        rate (float): The share of the counted elements that may stay at or below it.

    Returns:
        The smallest such power of two, as a scalar of float64; NaN if nothing was counted.
    """
    xp = backend.get_array_module(counts)
    total = counts.sum()
    at_or_below = xp.cumsum(counts)  # number i: at or below 2^(i - 126)
    # All of number i and what lies below it stays lost as long as 2^(i - 126) * shift <= threshold.
    first_kept = (at_or_below <= rate * total).sum()
    exponent = numpy.log2(threshold) + _EXPONENT_BIAS - first_kept
    return xp.where(total > 0, xp.ldexp(xp.float64(1), exponent.astype(numpy.int32)), numpy.nan)
