"""Statistics of whole arrays: extremes, moments, whether all is finite.

Every function takes a NumPy or a CuPy array and never waits for the device: a statistic of a NumPy
array is a scalar, one of a CuPy array a 0-d array that stays on its device. Moments are accumulated
in float32 (on a GPU, where that costs nothing, the sums of 16 bytes each in float64); the few
operations that turn them into a scale are done in float64, where a product of maxima is exact, so
that CPU and GPU agree.
"""

from chainerlp import gpu
from chainerlp.float16 import to_float32
from chainerlp.gpu import on_gpu

import numpy
from chainer import backend
from chainer.backends import cuda

_SUMMED_AT_ONCE = 1 << 13


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
    """Returns E[x²] over each sample, along the first axis.

    Args:
        array (ndarray): A float16 or float32 array of NumPy, of shape (samples, ...), not empty.

    Returns:
        ndarray: float64, of shape (samples,).
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


def _sum_of_squares(flat):
    # BLAS adds up in float32, and a sum of millions of equal elements would be off by some 1e-3.
    whole = flat.size // _SUMMED_AT_ONCE * _SUMMED_AT_ONCE
    blocks = flat[:whole].reshape(-1, 1, _SUMMED_AT_ONCE)
    sums = numpy.matmul(blocks, blocks.swapaxes(1, 2))
    return sums.sum(dtype=numpy.float64) + numpy.dot(flat[whole:], flat[whole:])


CUDA_MOMENTS = r"""
struct Moments {
    double squares;
    unsigned largest;  // the bits of |x|

    // The squares of a chunk of halves are added in float; those of floats may leave float's range.
    __device__ void chunk(const half_bits* x, int size) { add<float>(x, size); }
    __device__ void chunk(const float* x, int size) { add<double>(x, size); }

    template <typename S, typename T> __device__ void add(const T* x, int size) {
        S sum = 0;
        #pragma unroll
        for (int i = 0; i < size; ++i) {
            const S value = value_of(x[i]);
            sum += value * value;
            largest = Largest::of(largest, bits_of(value_of(x[i])) & 0x7fffffffu);
        }
        squares += sum;
    }
};

// Measures an array of halves or floats, with all blocks. Returns true in the first thread of the
// block that is done last; there, moments are E[x^2] and max|x|.
// partial: two numbers a block; done: 0 at first.
__device__ bool measure(
        const void* x, index_t itemsize, index_t size, double* partial, unsigned* done,
        double* moments) {
    Moments own = {0, 0};
    if (itemsize == 2) for_all((const half_bits*)x, size, own);
    else for_all((const float*)x, size, own);
    const double squares = over_block<Sum>(own.squares);
    const unsigned largest = over_block<Largest>(own.largest);
    __shared__ bool is_last;
    if (threadIdx.x == 0) {
        partial[2 * blockIdx.x] = squares;
        partial[2 * blockIdx.x + 1] = largest;
        __threadfence();
        is_last = atomicAdd(done, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!is_last) return false;
    __threadfence();
    double sum = 0, maximum = 0;
    for (unsigned i = threadIdx.x; i < gridDim.x; i += THREADS) {
        sum += ((volatile double*)partial)[2 * i];
        maximum = Largest::of(maximum, (double)((volatile double*)partial)[2 * i + 1]);
    }
    moments[0] = over_block<Sum>(sum) / (size > 0 ? size : 1);
    moments[1] = value_of_bits((unsigned)over_block<Largest>(maximum));
    return threadIdx.x == 0;
}
"""
"""str: For raw kernels that end in something made of an array's moments, in the same launch."""

_STORE_MOMENTS = (
    CUDA_MOMENTS
    + r"""
extern "C" __global__ void store_moments(
        const void* x, index_t itemsize, index_t size, double* partial, unsigned* done,
        double* moments) {
    double found[2];
    if (!measure(x, itemsize, size, partial, done, found)) return;
    moments[0] = found[0];
    moments[1] = found[1];
}
"""
)


def moments_on_gpu(array):
    """Returns (E[x²], max|x|) of an array on a GPU, in one launch.

    Args:
        array (:ref:`ndarray`): A float16 or float32 array of any shape.

    Returns:
        :ref:`ndarray`: Two float64 numbers on the array's device.
    """
    moments = cuda.cupy.empty(2, numpy.float64)
    launch_with_moments(_STORE_MOMENTS, 'store_moments', array, moments)
    return moments


def launch_with_moments(code, name, array, *arguments):
    """Launches a raw kernel that measures an array and goes on from there.

    Args:
        code (str): CUDA C++ that begins with :data:`CUDA_MOMENTS`.
        name (str): The kernel. It takes what ``measure`` there does but for ``moments``, and then
            ``arguments``.
        array (:ref:`ndarray`): A float16 or float32 array of any shape.
        *arguments: See :func:`chainerlp.gpu.launch`.
    """
    row = gpu.contiguous(array)
    blocks = gpu.blocks_for(row)
    partial = cuda.cupy.empty((blocks, 2), numpy.float64)
    done = cuda.cupy.zeros((), numpy.uint32)
    gpu.launch(code, name, blocks, row, row.itemsize, row.size, partial, done, *arguments)


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
    const void* at[200];
    index_t size[200];
    unsigned char itemsize[200];
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
    if (arrays.itemsize[k] == 2) for_all((const half_bits*)arrays.at[k], arrays.size[k], finite);
    if (arrays.itemsize[k] == 4) for_all((const float*)arrays.at[k], arrays.size[k], finite);
    if (arrays.itemsize[k] == 8) for_all((const double*)arrays.at[k], arrays.size[k], finite);
    if (!finite.answer) *all_finite = false;  // whoever writes it writes the same
}
"""
_ARRAYS = numpy.dtype([('at', 'u8', 200), ('size', 'i8', 200), ('itemsize', 'u1', 200)])


def all_arrays_finite(arrays):
    """Returns whether none of some arrays has an inf or a NaN.

    Args:
        arrays (list of :ref:`ndarray`): Float arrays of any shapes, all on one device.

    Returns:
        bool or 0-d bool array: The answer; a bool for NumPy arrays, or for none.
    """
    if not arrays or not on_gpu(arrays[0]):
        return all(all_finite(array) for array in arrays)
    answer = cuda.cupy.ones((), numpy.bool_)
    rows = [gpu.contiguous(array) for array in arrays]
    rows = [(row, row.size, row.itemsize) for row in rows]
    gpu.launch_for_each(_FIND_NONFINITE, 'find_nonfinite', _ARRAYS, rows, answer)
    return answer
