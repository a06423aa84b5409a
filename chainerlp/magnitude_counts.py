"""Counts of an array's elements by magnitude: what a format loses, and histograms.

Every function takes a NumPy or a CuPy array and never waits for the device.
"""

from chainerlp import formats, gpu
from chainerlp.gpu import on_gpu

import numpy
from chainer import backend
from chainer.backends import cuda

_EXPONENT_FIELD = 2**formats.FLOAT32.exponent_bits  # how many values it has
_EXPONENT_BIAS = formats.FLOAT32.bias


def exponent_counts(array):
    """Counts the nonzero elements of an array, as float32, between the powers of two.

    Args:
        array (:ref:`ndarray`): A float array of any shape.

    Returns:
        :ref:`ndarray`: 256 integers; number ``i`` counts the elements with
        2^(i - 127) < |x| <= 2^(i - 126). The upper end belongs to the interval, as a tie with
        the smallest subnormal's half rounds to zero. Inf is counted in number 254, NaN in 255,
        float32's subnormals in 0.
    """
    array = array.astype(numpy.float32, copy=False)
    if on_gpu(array):
        return _exponent_counts_on_gpu(array)
    bits = (array.view(numpy.int32) & numpy.int32(0x7FFFFFFF)).ravel()
    field = (bits - 1) >> formats.FLOAT32.mantissa_bits  # -1 for zero
    return numpy.bincount(field + 1, minlength=_EXPONENT_FIELD + 1)[1:]


_COUNT_EXPONENTS = r"""
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


def _exponent_counts_on_gpu(array):
    # CuPy's bincount would wait for the device.
    row = gpu.contiguous(array)
    blocks = gpu.blocks_for(row)
    partial = cuda.cupy.empty((blocks, _EXPONENT_FIELD + 1), numpy.int64)
    gpu.launch(_COUNT_EXPONENTS, 'count_exponents', blocks, row, row.size, partial)
    return partial.sum(axis=0)[1:]


def magnitude_histogram(array, lowest, highest):
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


def smallest_scale_that_keeps(counts, threshold, rate):
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


def count_underflow_and_overflow(product, format):
    """Counts what rounding a product to a format loses.

    Args:
        product (:ref:`ndarray`): A float32 array of any shape.
        format (~chainerlp.formats.Format): The format, rounded to as IEEE 754's nearest even.

    Returns:
        tuple: How many nonzero elements become zero, and how many finite ones become inf (or what
        the format has instead).
    """
    if on_gpu(product):
        return _count_underflow_and_overflow_on_gpu(product, format)
    magnitude = numpy.abs(product)
    underflowed = (magnitude <= format.underflow_threshold) & (magnitude > 0)
    with numpy.errstate(over='ignore'):  # float32's own threshold is beyond float32
        overflowed = format.overflows(magnitude) & (magnitude < numpy.inf)
    return numpy.count_nonzero(underflowed), numpy.count_nonzero(overflowed)


def _count_underflow_and_overflow_on_gpu(product, format):
    with numpy.errstate(over='ignore'):  # float32's own threshold is beyond float32
        ends = numpy.array([format.underflow_threshold, format.overflow_threshold], numpy.float32)
    underflow, overflow = ends.view(numpy.uint32).tolist()
    overflow += not format.has_inf
    inf = 0x7F800000
    return _count_between(product, 1, underflow), _count_between(product, overflow, inf - 1)


def _count_between(array, lowest, highest):
    """Counts magnitudes by their bits, which are in the same order: CuPy flushes subnormals."""
    if lowest > highest:
        return cuda.cupy.zeros((), numpy.int64)
    return cuda.reduce(
        'float32 x, uint32 lowest, uint32 highest',
        'int64 y',
        '(__float_as_uint(x) & 0x7fffffff) - lowest <= highest - lowest',
        'a + b',
        'y = a',
        '0',
        'chainerlp_count_between',
        reduce_type='long long',
    )(array, lowest, highest)
