"""E[x²] and max|x| on a GPU, in one launch with what is made of them.

Squares of 16 bytes each are added in float32 where x is float16, all else in float64.
"""

from chainerlp import gpu

import numpy
from chainer.backends import cuda

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

// An array of halves or floats, which some of the grid's blocks measure, from number `begin`.
struct Measured {
    const void* x;
    index_t itemsize, size, begin, blocks;

    // What each of these blocks does; of all blocks, partial has two numbers each.
    __device__ void measure(double* partial) const {
        Moments own = {0, 0};
        const index_t block = blockIdx.x - begin;
        if (block < 0 || block >= blocks) return;
        const index_t first = block * THREADS + threadIdx.x, all = blocks * THREADS;
        if (itemsize == 2) for_all((const half_bits*)x, size, own, first, all);
        else for_all((const float*)x, size, own, first, all);
        const double squares = over_block<Sum>(own.squares);
        const unsigned largest = over_block<Largest>(own.largest);
        if (threadIdx.x == 0) {
            partial[2 * blockIdx.x] = squares;
            partial[2 * blockIdx.x + 1] = largest;
        }
    }

    // Gives all threads of the last block E[x^2] and max|x|.
    __device__ void moments(const double* partial, double* moments) const {
        double sum = 0, largest = 0;
        for (index_t i = begin + threadIdx.x; i < begin + blocks; i += THREADS) {
            sum += ((const volatile double*)partial)[2 * i];
            largest = Largest::of(largest, (double)((const volatile double*)partial)[2 * i + 1]);
        }
        moments[0] = over_block<Sum>(sum) / (size > 0 ? size : 1);
        moments[1] = value_of_bits((unsigned)over_block<Largest>(largest));
    }
};
"""
"""str: For raw kernels that end in something made of an array's moments, in the same launch."""

_STORE_MOMENTS = (
    CUDA_MOMENTS
    + r"""
extern "C" __global__ void store_moments(
        double* partial, unsigned* done, Measured x, double* moments) {
    double found[2];
    x.measure(partial);
    if (!is_last_block(done)) return;
    x.moments(partial, found);
    if (threadIdx.x < 2) moments[threadIdx.x] = found[threadIdx.x];
}
"""
)


def moments_on_gpu(array):
    """Returns (E[x²], max|x|) of a float16 or float32 array on a GPU, as float64, in one launch."""
    moments = cuda.cupy.empty(2, numpy.float64)
    launch_with_moments(_STORE_MOMENTS, 'store_moments', [array], moments)
    return moments


_MEASURED = numpy.dtype(
    [('x', 'u8'), ('itemsize', 'i8'), ('size', 'i8'), ('begin', 'i8'), ('blocks', 'i8')]
)


def launch_with_moments(code, name, arrays, *arguments, more_blocks=0):
    """Launches a raw kernel that measures arrays and goes on from there.

    Args:
        code (str): CUDA C++ that begins with :data:`CUDA_MOMENTS`.
        name (str): The kernel. It takes ``partial`` and ``done`` as the functions there do, a
            ``Measured`` for each array, and then ``arguments``.
        arrays (list of :ref:`ndarray`): float16 or float32 arrays of any shapes.
        *arguments: See :func:`chainerlp.gpu.launch`.
        more_blocks (int): How many blocks follow those that measure.
    """
    rows = [gpu.contiguous(array) for array in arrays]
    measured, blocks = [], 0
    for row in rows:
        of_row = row.data.ptr, row.itemsize, row.size, blocks, gpu.blocks_for(row)
        measured.append(numpy.array(of_row, _MEASURED))
        blocks += of_row[-1]
    partial = cuda.cupy.empty((blocks, 2), numpy.float64)
    done = gpu.kept_zeros('done', 1)
    gpu.launch(code, name, blocks + more_blocks, partial, done, *measured, *arguments)
