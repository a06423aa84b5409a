"""Arrays on a GPU: telling them from NumPy's, and launching raw CUDA kernels on them.

Raw kernels stand only where they save launches: statistics that end in the choice of a scale, and
one launch for many arrays. Each stands beside the NumPy code that defines it. Raw sums are formed
in a fixed order, so that the same array gives the same bits on each run. Nothing here waits for the
device.
"""

import functools
import threading

import numpy
from chainer import backend

OPTIONS = ('--std=c++17',)  # as CuPy 14 compiles its own
THREADS = 256
# A grid of so many blocks fills any GPU of today, and its partial results are still few.
MOST_BLOCKS = 1024
_CHUNK_BYTES = 16
_CHUNKS_A_THREAD = 4

PRELUDE = r"""
#include <cuda_fp16.h>

#define THREADS 256
typedef unsigned short half_bits;  // a float16 by its bits
typedef long long index_t;

__device__ inline float value_of(half_bits x) { return __half2float(__ushort_as_half(x)); }
__device__ inline float value_of(float x) { return x; }
__device__ inline double value_of(double x) { return x; }
__device__ inline void store(float x, half_bits* y) { *y = __half_as_ushort(__float2half_rn(x)); }
__device__ inline void store(float x, float* y) { *y = x; }
__device__ inline unsigned bits_of(float x) { return __float_as_uint(x); }
// Of a float's bits, also of a subnormal's, for which a float's operations would take 0.
__device__ inline double value_of_bits(unsigned bits) {
    return bits >> 23 ? __uint_as_float(bits) : ldexp((double)bits, -149);
}

__device__ inline index_t first_index() { return blockIdx.x * (index_t)blockDim.x + threadIdx.x; }
__device__ inline index_t all_threads() { return (index_t)gridDim.x * blockDim.x; }
__device__ inline bool is_aligned(const void* p) { return (unsigned long long)p % 16 == 0; }

// Which of many arrays a block works on, and of how many threads that do this is which.
struct Share { int k; index_t first, all; };

// begin: for each array the number of its first block; for places that are left over, of none.
template <int N> __device__ inline Share share_of(const int (&begin)[N]) {
    int k = 0;
    #pragma unroll
    for (int step = 64; step > 0; step /= 2)
        if (k + step < N && begin[k + step] <= (int)blockIdx.x) k += step;
    const index_t end = k + 1 < N ? begin[k + 1] : gridDim.x, block = blockIdx.x - begin[k];
    return {k, block * THREADS + threadIdx.x, (end - begin[k]) * THREADS};
}

// What a thread reads or writes at once: as two words, since tools that watch what a kernel loads
// do not see a struct that is copied whole.
struct alignas(16) Words { unsigned long long low, high; };
template <typename T> union Chunk {
    Words words;
    T at[16 / sizeof(T)];
};
__device__ inline Words words_at(const void* p) {
    const Words* words = (const Words*)p;
    Words copy;
    copy.low = words->low;
    copy.high = words->high;
    return copy;
}
__device__ inline void store_words(Words words, void* p) {
    ((Words*)p)->low = words.low;
    ((Words*)p)->high = words.high;
}

// Calls visit.chunk(elements, how many) for 16 bytes at a time where x is aligned, and for one
// element at a time where it is not, and at the end. `all` threads share the work; this is number
// `first` of them.
template <typename T, typename Visit>
__device__ void for_all(
        const T* x, index_t size, Visit& visit, index_t first = first_index(),
        index_t all = all_threads()) {
    const int per_chunk = 16 / sizeof(T);
    index_t done = 0;
    if (is_aligned(x)) {
        const index_t chunks = size / per_chunk;
        #pragma unroll 4
        for (index_t i = first; i < chunks; i += all) {
            Chunk<T> chunk;
            chunk.words = words_at(x + i * per_chunk);
            visit.chunk(chunk.at, per_chunk);
        }
        done = chunks * per_chunk;
    }
    for (index_t i = done + first; i < size; i += all) {
        const T element = x[i];
        visit.chunk(&element, 1);
    }
}

struct Sum {
    template <typename V> __device__ static V of(V a, V b) { return a + b; }
};
struct Largest {
    template <typename V> __device__ static V of(V a, V b) { return a < b ? b : a; }
};

// Returns the block's result in every thread.
template <typename Operation, typename V> __device__ V over_block(V value) {
    __shared__ V values[THREADS];
    values[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            values[threadIdx.x] = Operation::of(values[threadIdx.x], values[threadIdx.x + half]);
        __syncthreads();
    }
    value = values[0];
    __syncthreads();  // before the next call writes to the same place
    return value;
}

// Returns true in all threads of the block that comes here last of so many: it sees (past its
// cache, which is what `volatile` is for) what the others have written. done: 0 before and after.
__device__ bool is_last(unsigned* done, index_t expected) {
    __shared__ bool answer;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) answer = atomicInc(done, (unsigned)expected - 1) == expected - 1;
    __syncthreads();
    __threadfence();
    return answer;
}

__device__ bool is_last_block(unsigned* done) {
    return is_last(done, (index_t)gridDim.x * gridDim.y);
}
"""


def on_gpu(array):
    """Returns whether an array, or a number, is CuPy's."""
    return backend.get_array_module(array) is not numpy


def number_for(array, number):
    """Returns a number that an array can be multiplied by: a float, if only the number is on a GPU.

    Then the model has been moved, and the host waits once.
    """
    return float(number) if on_gpu(number) and not on_gpu(array) else number


def blocks_for(array):
    """Returns how many blocks go through an array: each thread gets a few chunks, if there are."""
    chunks = -(-array.nbytes // _CHUNK_BYTES)
    return max(1, min(MOST_BLOCKS, -(-chunks // (THREADS * _CHUNKS_A_THREAD))))


_kept_zeros = {}


def kept_zeros(use, words):
    """Returns uint32 zeros for a kernel that leaves them zero: no launch is needed to fill them.

    They are the same ones for each launch on the current stream, on which one follows the other.

    Args:
        use (str): What they are for; one kernel may take several.
        words (int): How many there are at least.
    """
    import cupy

    stream = cupy.cuda.get_current_stream().ptr  # each thread may have one of the same name
    key = use, threading.get_ident(), cupy.cuda.runtime.getDevice(), stream
    if key not in _kept_zeros or _kept_zeros[key].size < words:
        _kept_zeros[key] = cupy.zeros(words, numpy.uint32)
    return _kept_zeros[key]


def launch(code, name, blocks, *arguments):
    """Launches a kernel on the current device and stream.

    Args:
        code (str): CUDA C++ that begins where ``PRELUDE`` ends.
        name (str): The kernel, declared ``extern "C"``.
        blocks (int or tuple of int): The grid; blocks have ``THREADS`` threads.
        *arguments: Its arguments: arrays for pointers (``None`` for a null pointer), ints for
            ``index_t``, floats for ``double``, NumPy arrays of one element for structs by value.
    """
    grid = blocks if isinstance(blocks, tuple) else (blocks,)
    # CuPy 13 takes None for no argument at all.
    arguments = tuple(0 if argument is None else argument for argument in arguments)
    _kernel(code, name)(grid, (THREADS,), arguments)


def launch_for_each(code, name, struct, rows, *arguments):
    """Launches a kernel whose blocks share in many arrays, each with as many as its size asks for.

    Args:
        code (str): As of :func:`launch`, like ``name``.
        name (str): The kernel.
        struct (numpy.dtype): The kernel's first argument: in each field places for as many arrays,
            up to 128, as one launch takes; the last field is ``begin`` of ``share_of``. What is
            given by value must stay under 4 KiB.
        rows (list of tuple): For each array what its places hold, in the order of the fields:
            arrays for pointers, and integers. The first is the array itself.
        *arguments: The kernel's other arguments.
    """
    (places,) = struct[0].shape
    for start in range(0, len(rows), places):
        some = rows[start : start + places]
        table = numpy.zeros((), struct)
        for field, values in zip(struct.names, zip(*some)):
            table[field][: len(some)] = [v if isinstance(v, int) else v.data.ptr for v in values]
        ends = numpy.cumsum([blocks_for(row[0]) for row in some])
        table['begin'] = ends[-1]
        table['begin'][: len(some)] = [0, *ends[:-1]]
        launch(code, name, int(ends[-1]), table, *arguments)


def scalar_of(scale):
    """Returns what a row of :func:`launch_for_each` holds of a float32 number: array, and bits.

    Args:
        scale (float or 0-d array): If it is on the device, the kernel reads it there; else the
            first is 0, for a null pointer, and the second has the number's bits.
    """
    if on_gpu(scale):
        return scale.astype(numpy.float32, copy=False), 0
    return 0, int(numpy.float32(scale).view(numpy.uint32))


def elementwise_scalars(**numbers):
    """Returns how an elementwise kernel takes numbers of which each block reads each once.

    An array would be read for each element.

    Args:
        **numbers (float or 0-d :ref:`ndarray`): The numbers, by their names in the kernel, where
            they are float32.

    Returns:
        tuple: Parameters of the kernel, its ``loop_prep``, and arguments for those parameters.
    """
    parameters, loads, reads, arguments = [], '', '', []
    for name, number in numbers.items():
        if on_gpu(number):
            parameters.append(f'raw float32 {name}_there')
            loads += f'__shared__ float of_block_{name};\n'
            loads += f'if (threadIdx.x == 0) of_block_{name} = {name}_there[0];\n'
            reads += f'const float {name} = of_block_{name};\n'
            number = number.astype(numpy.float32, copy=False)
        else:
            parameters.append(f'float32 {name}')
        arguments.append(number)
    return ', '.join(parameters), f'{loads}__syncthreads();\n{reads}' if reads else '', arguments


def contiguous(array):
    """Returns the elements of an array as one row: a view where it has no gaps, or else a copy."""
    return array.ravel(order='K')


@functools.cache
def _kernel(code, name):
    import cupy

    return cupy.RawKernel(PRELUDE + code, name, options=OPTIONS)
