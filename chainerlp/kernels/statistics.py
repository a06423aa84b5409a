"""What is measured in an array: moments, extremes, and what is special in it.

Every function takes a NumPy or a CuPy array and never waits for the device: a statistic of a NumPy
array is a float64 scalar, one of a CuPy array a 0-d float64 array that stays where it is.
Statistics are accumulated in float32, as design, section 1, asks (on a GPU, where that costs
nothing, the sums of 16 bytes each in float64); the few operations that turn them into a scale are
done in float64, where a product of maxima is exact, so that CPU and GPU agree.
"""

import dataclasses

from chainerlp import formats, rounding
from chainerlp.kernels import cuda

import numpy
from chainer import backend

_SUMMED_AT_ONCE = 1 << 13


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What one pass over an array finds.

    Attributes:
        values (:ref:`ndarray`): Five float64 numbers on the array's device: the properties below,
            in their order.
    """

    values: object

    @property
    def second_moment(self):
        """E[x²] over all elements, zeros included; 0 for an empty array."""
        return self.values[0]

    @property
    def largest(self):
        """max|x|; NaN if there is a NaN, 0 for an empty array."""
        return self.values[1]

    @property
    def zeros(self):
        """How many elements are zero."""
        return self.values[2]

    @property
    def subnormals(self):
        """How many elements are subnormal in the array's own dtype."""
        return self.values[3]

    @property
    def nonfinite(self):
        """How many elements are inf or NaN."""
        return self.values[4]


def measure(array):
    """Measures an array in one pass.

    Args:
        array (:ref:`ndarray`): A float16 or float32 array of any shape.

    Returns:
        Statistics: What was found.
    """
    if backend.get_array_module(array) is not numpy:
        return on_device(array)
    magnitude = numpy.abs(array)
    is_subnormal = (magnitude > 0) & (magnitude < formats.get(array.dtype.name).smallest_normal)
    counts = [array.size - numpy.count_nonzero(array), is_subnormal.sum()]
    counts.append(array.size - numpy.isfinite(array).sum())
    return Statistics(
        numpy.array([second_moment(array), largest_magnitude(array), *counts], numpy.float64)
    )


_STATISTICS = r"""
// The squares of a chunk of halves are added in float; those of floats may leave float's range.
template <typename T> struct Square;
template <> struct Square<half_bits> { typedef float type; };
template <> struct Square<float> { typedef double type; };

__device__ inline bool is_subnormal(half_bits x) { return (x & 0x7fff) - 1u < 0x3ffu; }
__device__ inline bool is_subnormal(float x) { return (bits_of(x) & 0x7fffffffu) - 1u < 0x7fffffu; }

template <typename T> struct Measure {
    double squares;
    unsigned largest;  // the bits of |x|: in the order of the values, and NaN comes last
    index_t zeros, subnormals, nonfinite;

    __device__ void chunk(const T* x, int size) {
        typename Square<T>::type sum = 0;
        #pragma unroll
        for (int i = 0; i < size; ++i) {
            const typename Square<T>::type value = value_of(x[i]);
            sum += value * value;
            const unsigned bits = bits_of(value_of(x[i])) & 0x7fffffffu;
            largest = Largest::of(largest, bits);
            zeros += bits == 0;
            subnormals += is_subnormal(x[i]);
            nonfinite += bits >= 0x7f800000u;
        }
        squares += sum;
    }
};

template <typename T> __device__ void measure(const T* x, index_t size, double* partial) {
    Measure<T> own = {0, 0, 0, 0, 0};
    for_all(x, size, own);
    const double squares = over_block<Sum>(own.squares);
    const unsigned largest = over_block<Largest>(own.largest);
    const index_t zeros = over_block<Sum>(own.zeros);
    const index_t subnormals = over_block<Sum>(own.subnormals);
    const index_t nonfinite = over_block<Sum>(own.nonfinite);
    if (threadIdx.x == 0) {
        partial += 5 * blockIdx.x;
        partial[0] = squares;
        partial[1] = largest;  // the bits, as an integer
        partial[2] = zeros;
        partial[3] = subnormals;
        partial[4] = nonfinite;
    }
}

extern "C" __global__ void measure_half(const half_bits* x, index_t size, double* partial) {
    measure(x, size, partial);
}

extern "C" __global__ void measure_float(const float* x, index_t size, double* partial) {
    measure(x, size, partial);
}

// Run by one block.
extern "C" __global__ void put_together(
        const double* partial, index_t blocks, index_t size, double* values) {
    double own[5] = {0, 0, 0, 0, 0};
    for (index_t i = threadIdx.x; i < blocks; i += THREADS)
        for (int k = 0; k < 5; ++k)
            own[k] = k == 1 ? Largest::of(own[k], partial[5 * i + k]) : own[k] + partial[5 * i + k];
    for (int k = 0; k < 5; ++k) {
        const double whole = k == 1 ? over_block<Largest>(own[k]) : over_block<Sum>(own[k]);
        if (threadIdx.x == 0) {
            if (k == 0)
                values[k] = whole / (size > 0 ? size : 1);
            else
                values[k] = k == 1 ? value_of_bits((unsigned)whole) : whole;
        }
    }
}
"""


def on_device(array):
    """:func:`measure` by a kernel: one pass over the array, then one over the partial results."""
    xp = backend.get_array_module(array)
    row = cuda.contiguous(array)
    blocks = cuda.blocks_for(row)
    partial = xp.empty((blocks, 5), numpy.float64)
    values = xp.empty(5, numpy.float64)
    cuda.launch(_STATISTICS, f'measure_{cuda.suffix(row.dtype)}', blocks, row, row.size, partial)
    cuda.launch(_STATISTICS, 'put_together', 1, partial, blocks, row.size, values)
    return Statistics(values)


def largest_magnitude(array):
    """Returns max|x|: 0 for an empty array, NaN if there is a NaN."""
    xp = backend.get_array_module(array)
    if xp is not numpy:
        if array.dtype == numpy.float64:
            return xp.abs(array).max() if array.size else xp.zeros(())
        return on_device(array).largest
    if array.size == 0:
        return xp.float64(0)
    array = rounding.to_float32(array)
    # abs: of an all-zero array the maximum may be -0.
    return xp.abs(xp.maximum(array.max(), -array.min())).astype(numpy.float64)


def second_moment(array):
    """Returns E[x²] over all elements, zeros included: 0 for an empty array."""
    if backend.get_array_module(array) is not numpy:
        return on_device(array).second_moment
    if array.size == 0:
        return numpy.float64(0)
    flat = rounding.to_float32(array).ravel()
    with numpy.errstate(over='ignore'):
        moment = _sum_of_squares(flat) / array.size
    if not 1e-30 < moment < 1e30:
        # The squares left float32's range; magnitudes like these occur in float32 weights only.
        moment = numpy.mean(numpy.square(flat, dtype=numpy.float64))
    return moment


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
    magnitude = xp.abs(rounding.to_float32(array))
    smallest = xp.where(magnitude == 0, numpy.float32(numpy.inf), magnitude).min()
    return smallest.astype(numpy.float64), magnitude.max().astype(numpy.float64)


def log_moments(array):
    """Returns mean and standard deviation of ln|x| over the nonzero x: NaN if there are none."""
    xp = backend.get_array_module(array)
    if array.size == 0:
        return xp.float64(numpy.nan), xp.float64(numpy.nan)
    magnitude = xp.abs(rounding.to_float32(array)).astype(numpy.float64)
    present = magnitude != 0
    with numpy.errstate(invalid='ignore'):  # nothing to count, or an inf
        count = xp.count_nonzero(present)
        logarithm = xp.log(xp.where(present, magnitude, 1))
        mean = logarithm.sum() / count
        deviation = xp.where(present, logarithm - mean, 0)
        return mean, xp.sqrt((deviation**2).sum() / count)
