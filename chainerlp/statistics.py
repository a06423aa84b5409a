"""Statistics of whole arrays: extremes, moments, finite or not, and counts by magnitude.

Every function takes a NumPy or a CuPy array and never waits for the device: a statistic of a NumPy
array is a scalar, one of a CuPy array a 0-d array that stays on its device. Moments are accumulated
in float32 (on a GPU, where that costs nothing, the sums of 16 bytes each in float64); the few
operations that turn them into a scale are done in float64, where a product of maxima is exact, so
that CPU and GPU agree.
"""

import math

from chainerlp import formats, gpu
from chainerlp.gpu import on_gpu
from chainerlp.moments import moments_on_gpu
from chainerlp.rounding import to_float32

import numpy
from chainer import backend
from chainer.backends import cuda

_SUMMED_AT_ONCE = 1 << 13
_EXPONENT_BIAS = formats.FLOAT32.bias


def largest_magnitude(array):
    """Returns max|x|: 0 for an empty array, NaN if there is a NaN.

    Args:
        array (:ref:`ndarray`): A float16, float32 or float64 array of any shape.

    Returns:
        float64 scalar or 0-d array: The maximum.
    """
    xp = backend.get_array_module(array)
    if array.size == 0:
        return xp.zeros((), numpy.float64)[()]
    if array.dtype == numpy.float64:
        return xp.abs(array).max()
    if on_gpu(array):
        largest = cuda.reduce(
            'T x',
            'float64 y',
            '__float_as_uint((float)x) & 0x7fffffff',  # in the order of |x|, and NaN comes last
            'max(a, b)',
            'y = __uint_as_float(a)',
            '0',
            'chainerlp_largest_magnitude',
            reduce_type='unsigned',
        )
        return largest(array)
    if array.dtype == numpy.float16:
        largest = (array.view(numpy.uint16) & numpy.uint16(0x7FFF)).max()
        return numpy.float64(largest.view(numpy.float16))
    # abs: of an all-zero array the maximum may be -0.
    return numpy.float64(abs(numpy.maximum(array.max(), -array.min())))


def second_moment(array):
    """Returns E[x²] over all elements, zeros included: 0 for an empty array.

    Args:
        array (:ref:`ndarray`): A float16 or float32 array of any shape.

    Returns:
        float64 scalar or 0-d array: The moment.
    """
    if on_gpu(array):
        return moments_on_gpu(array)[0]
    if array.size == 0:
        return numpy.float64(0)
    flat = to_float32(array).ravel()
    with numpy.errstate(over='ignore'):
        moment = _sum_of_squares(flat) / array.size
    if not 1e-30 < moment < 1e30:
        # The squares left float32's range; magnitudes like these occur in float32 weights only.
        moment = numpy.mean(numpy.square(flat, dtype=numpy.float64))
    return moment


def second_moments_by_sample(array):
    """Returns E[x²] over each sample, a float64 array of shape (samples,).

    Args:
        array (ndarray): A float16 or float32 array of NumPy, of shape (samples, ...), not empty.
    """
    rows = to_float32(array).reshape(len(array), -1)
    with numpy.errstate(over='ignore', under='ignore'):
        sums = numpy.matmul(rows[:, None, :], rows[:, :, None]).ravel()
        moments = sums.astype(numpy.float64) / rows.shape[1]
        # Where squares left float32's range, as those of float32 gradients do.
        wide = ~((moments > 1e-30) & (moments < 1e30)) & (moments == moments)
        if wide.any():
            squares = numpy.square(rows[wide], dtype=numpy.float64)
            moments[wide] = squares.mean(axis=1)
    return moments


def squares_by_position(gy, window):
    """Returns Σ gy² over what an element of gx sums over, for each position and group of channels.

    Args:
        gy (ndarray): A float16 or float32 array of NumPy, (n, channels, *window.gy_size), no side
            of it 0.
        window (~chainerlp.window.Window): Which positions of gy belong to one of gx.

    Returns:
        ndarray: A float64 array of shape (n, groups, *window.gx_size).
    """
    by_group = gy.reshape(len(gy), window.groups, -1, *window.gy_size)
    # In float64, as squares of float32 gradients leave float32's range.
    squares = numpy.einsum('ngc...,ngc...->ng...', by_group, by_group, dtype=numpy.float64)
    return window.sums(squares)


BINS_AN_OCTAVE = 8
_FLOAT64_MANTISSA_BITS = 52
_BITS_OF_INF = 0x7FF << _FLOAT64_MANTISSA_BITS


def binned(array):
    """Counts positive numbers in eighths of the intervals between powers of two.

    Args:
        array (ndarray): A float64 array of NumPy, of no negative numbers.

    Returns:
        tuple of ndarray: The middles of the intervals that have any, and their counts; zeros are
        left out. Infs are in an interval of their own, and NaNs in some.
    """
    shift = _FLOAT64_MANTISSA_BITS - int(math.log2(BINS_AN_OCTAVE))
    bins = array[array != 0].view(numpy.int64) >> shift
    if not bins.size:
        return numpy.empty(0), numpy.empty(0, int)
    lowest = bins.min()
    counts = numpy.bincount(bins - lowest)
    (present,) = counts.nonzero()
    middles = ((present + lowest << shift) + (1 << shift - 1)).view(numpy.float64)
    # What has inf's exponent is inf or NaN.
    middles[present + lowest == _BITS_OF_INF >> shift] = numpy.inf
    return middles, counts[present]


def _sum_of_squares(flat):
    # BLAS adds up in float32, and a sum of millions of equal elements would be off by some 1e-3.
    whole = flat.size // _SUMMED_AT_ONCE * _SUMMED_AT_ONCE
    blocks = flat[:whole].reshape(-1, 1, _SUMMED_AT_ONCE)
    sums = numpy.matmul(blocks, blocks.swapaxes(1, 2))
    return sums.sum(dtype=numpy.float64) + numpy.dot(flat[whole:], flat[whole:])


def nonzero_range(array):
    """Returns (min|x|, max|x|) over the nonzero elements: (inf, 0) if there are none."""
    xp = backend.get_array_module(array)
    if array.size == 0:
        return xp.float64(numpy.inf), xp.float64(0)
    magnitude = xp.abs(to_float32(array))
    smallest = xp.where(magnitude == 0, numpy.float32(numpy.inf), magnitude).min()
    return smallest.astype(numpy.float64), magnitude.max().astype(numpy.float64)


def log_moments(array):
    """Returns mean and standard deviation of ln|x| over the nonzero x: NaN if there are none."""
    xp = backend.get_array_module(array)
    if array.size == 0:
        return xp.float64(numpy.nan), xp.float64(numpy.nan)
    magnitude = xp.abs(to_float32(array)).astype(numpy.float64)
    present = magnitude != 0
    with numpy.errstate(invalid='ignore'):  # nothing to count, or an inf
        count = xp.count_nonzero(present)
        logarithm = xp.log(xp.where(present, magnitude, 1))
        mean = logarithm.sum() / count
        deviation = xp.where(present, logarithm - mean, 0)
        return mean, xp.sqrt((deviation**2).sum() / count)


def all_finite(array):
    """Returns whether an array has neither inf nor NaN, as a bool (NumPy) or a 0-d bool array."""
    if array.dtype == numpy.float16 and not on_gpu(array):
        exponent = array.view(numpy.uint16) & numpy.uint16(0x7C00)
        return bool((exponent != 0x7C00).all())
    return backend.get_array_module(array).isfinite(array).all()


_FIND_NONFINITE = r"""
struct Arrays {
    const void* at[100];
    index_t size[100];
    const float* scale[100];  // or else, with a null pointer, the number's bits
    unsigned bits[100];
    int itemsize[100], begin[100];
};

__device__ inline bool is_finite(float x) { return (bits_of(x) & 0x7f800000u) != 0x7f800000u; }
__device__ inline bool is_finite(double x) { return x - x == 0; }

struct Finite {
    float factor;
    bool answer;
    template <typename T> __device__ void chunk(const T* x, int size) {
        #pragma unroll
        for (int i = 0; i < size; ++i) answer &= is_finite(value_of(x[i]) * factor);
    }
};

extern "C" __global__ void find_nonfinite(Arrays arrays, bool* all_finite) {
    const Share share = share_of(arrays.begin);
    const int k = share.k;
    const void* at = arrays.at[k];
    const index_t size = arrays.size[k];
    const float scale = arrays.scale[k] ? *arrays.scale[k] : __uint_as_float(arrays.bits[k]);
    Finite finite = {(float)(1.0 / scale), true};
    if (arrays.itemsize[k] == 2)
        for_all((const half_bits*)at, size, finite, share.first, share.all);
    if (arrays.itemsize[k] == 4)
        for_all((const float*)at, size, finite, share.first, share.all);
    if (arrays.itemsize[k] == 8)
        for_all((const double*)at, size, finite, share.first, share.all);
    if (!finite.answer) *all_finite = false;  // whoever writes it writes the same
}
"""
_ARRAYS = numpy.dtype(
    [('at', 'u8', 100), ('size', 'i8', 100), ('scale', 'u8', 100)]
    + [('bits', 'u4', 100), ('itemsize', 'i4', 100), ('begin', 'i4', 100)]
)


def all_arrays_finite(arrays, scales):
    """Returns whether some arrays, scales divided out in float32, have neither an inf nor a NaN.

    Args:
        arrays (list of :ref:`ndarray`): Float arrays of any shapes, all on one device.
        scales (list of float or 0-d array): A scale for each; it may be on the device.

    Returns:
        bool or 0-d bool array: The answer; a bool for NumPy arrays, or for none.
    """
    if not arrays or not on_gpu(arrays[0]):
        return all(map(_is_finite_without, arrays, scales))
    answer = cuda.cupy.ones((), numpy.bool_)
    rows = []
    for array, scale in zip(arrays, scales):
        row = gpu.contiguous(array)
        rows.append((row, row.size, *gpu.scalar_of(scale), row.itemsize))
    gpu.launch_for_each(_FIND_NONFINITE, 'find_nonfinite', _ARRAYS, rows, answer)
    return answer


def _is_finite_without(array, scale):
    # A scale from 1 on takes nothing out of float32.
    return all_finite(array) and (
        scale >= 1 or bool(largest_magnitude(array) / scale <= formats.FLOAT32.largest)
    )


EXPONENTS = 2**formats.FLOAT32.exponent_bits
"""int: How many intervals :func:`exponent_counts` has."""

CUDA_EXPONENT_COUNTS = r"""
// Adds to 257 counts how many elements have the exponent of the next number towards zero; zero
// itself is number 0. Returns the bits of the largest magnitude that the thread has seen.
__device__ unsigned count(const float* x, index_t size, index_t* counts) {
    __shared__ unsigned of_block[257];
    for (int i = threadIdx.x; i < 257; i += THREADS) of_block[i] = 0;
    __syncthreads();
    unsigned largest = 0;
    for (index_t i = first_index(); i < size; i += all_threads()) {
        const unsigned magnitude = bits_of(x[i]) & 0x7fffffffu;
        largest = Largest::of(largest, magnitude);
        atomicAdd(&of_block[((int)magnitude - 1 >> 23) + 1], 1u);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 257; i += THREADS)
        if (of_block[i]) atomicAdd((unsigned long long*)&counts[i], of_block[i]);
    return largest;
}
"""
"""str: For raw kernels that end in something made of the counts, in the same launch."""

_COUNT_EXPONENTS = (
    CUDA_EXPONENT_COUNTS
    + r"""
extern "C" __global__ void count_exponents(const float* x, index_t size, index_t* counts) {
    count(x, size, counts);
}
"""
)


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
    if on_gpu(array):  # CuPy's bincount would wait for the device
        row = gpu.contiguous(array)
        counts = cuda.cupy.zeros(EXPONENTS + 1, numpy.int64)
        blocks = gpu.blocks_for(row)
        gpu.launch(_COUNT_EXPONENTS, 'count_exponents', blocks, row, row.size, counts)
        return counts[1:]
    bits = (array.view(numpy.int32) & numpy.int32(0x7FFFFFFF)).ravel()
    field = (bits - 1) >> formats.FLOAT32.mantissa_bits  # -1 for zero
    return numpy.bincount(field + 1, minlength=EXPONENTS + 1)[1:]


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
    with numpy.errstate(over='ignore'):  # float32's own threshold is beyond float32
        ends = numpy.array([format.underflow_threshold, format.overflow_threshold], numpy.float32)
    underflow, overflow = ends.view(numpy.uint32).tolist()
    overflow += not format.has_inf
    inf = 0x7F800000
    return _count_between(product, 1, underflow), _count_between(product, overflow, inf - 1)


def _count_between(array, lowest, highest):
    """Counts magnitudes by their bits, which are in the same order: CuPy flushes subnormals."""
    if lowest > highest:
        return backend.get_array_module(array).zeros((), numpy.int64)[()]
    if not on_gpu(array):
        bits = array.view(numpy.uint32) & numpy.uint32(0x7FFFFFFF)
        return numpy.count_nonzero((lowest <= bits) & (bits <= highest))
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
