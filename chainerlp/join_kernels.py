"""The launches that join gradients on a GPU: the choice of their common scale, and the sum at it.

Beside the NumPy code of :mod:`chainerlp.scaled_array`, which defines what they compute.
"""

import math

from chainerlp import formats, gpu
from chainerlp.gpu import on_gpu

import numpy
from chainer.backends import cuda

# What one launch adds; more are added in several.
_ARRAYS_A_LAUNCH = 16

_CUDA_FOUND = (
    formats.CUDA_FLOOR_POWER_OF_TWO
    + r"""
// Of true gradients: the largest sum, and the largest of one, with its scale.
struct Found { double total, largest; float scale; };

__device__ inline void look_at(Found& found, double largest, float scale) {
    if (largest > found.largest || (largest == found.largest && scale > found.scale)) {
        found.largest = largest;
        found.scale = scale;
    }
}

__device__ inline double choose(Found found, double highest, double limit) {
    if (!isfinite(found.total)) return found.scale;
    if (found.total * found.scale > limit) return floor_power_of_two(limit / found.total);
    if (found.total == 0) return highest;
    return max((double)found.scale, min(highest, floor_power_of_two(1 / found.total)));
}
"""
)

_CUDA_JOIN = (
    _CUDA_FOUND
    + r"""
struct Gradients {
    const void* at[16];
    const float* scale[16];  // or else, with a null pointer, the number's bits
    unsigned bits[16];
    index_t itemsize[16], distance[16];  // the distance of rows, in elements
    index_t count, rows, size;  // of arrays, of rows in each, and of elements in those
};

__device__ inline void store(double x, double* y) { *y = x; }

template <typename T, typename V> __device__ void load(const T* x, int size, V* values) {
    const int per_chunk = 16 / sizeof(T);
    const bool is_whole = size == 8 && is_aligned(x);
    #pragma unroll
    for (int i = 0; i < 8; i += per_chunk) {
        Chunk<T> chunk;
        if (is_whole) chunk.words = words_at(x + i);
        #pragma unroll
        for (int j = 0; j < per_chunk; ++j) {
            if (!is_whole && i + j < size) chunk.at[j] = x[i + j];
            if (i + j < size) values[i + j] = value_of(chunk.at[j]);
        }
    }
}

// Calls visit.chunk(all, row, begin, size) for 8 elements of a row at a time, or what is left.
template <typename Visit> __device__ void for_each_chunk(const Gradients& all, Visit& visit) {
    const index_t of_row = (all.size + 7) / 8;
    for (index_t i = first_index(); i < all.rows * of_row; i += all_threads()) {
        const index_t begin = i % of_row * 8;
        visit.chunk(all, i / of_row, begin, (int)min((index_t)8, all.size - begin));
    }
}

template <typename V> __device__ void load(
        const Gradients& all, int k, index_t row, index_t begin, int size, V* values) {
    const index_t first = row * all.distance[k] + begin;
    if (all.itemsize[k] == 2) load((const half_bits*)all.at[k] + first, size, values);
    else if (all.itemsize[k] == 4) load((const float*)all.at[k] + first, size, values);
    else load((const double*)all.at[k] + first, size, values);
}

__device__ inline float scale_of(const Gradients& all, int k) {
    return all.scale[k] ? *all.scale[k] : __uint_as_float(all.bits[k]);
}

struct Search {
    const float* scales;
    const double* inverses;
    Found found;

    __device__ void chunk(const Gradients& all, index_t row, index_t begin, int size) {
        double sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        for (int k = 0; k < all.count; ++k) {
            double values[8] = {0, 0, 0, 0, 0, 0, 0, 0}, largest = 0;
            load(all, k, row, begin, size, values);
            #pragma unroll
            for (int i = 0; i < 8; ++i) {
                sums[i] += values[i] * inverses[k];
                largest = max(largest, fabs(values[i]));
            }
            look_at(found, largest * inverses[k], scales[k]);
        }
        #pragma unroll
        for (int i = 0; i < 8; ++i) found.total = max(found.total, fabs(sums[i]));
    }

    __device__ static Found of(Found a, Found b) {
        look_at(a, b.largest, b.scale);
        a.total = max(a.total, b.total);
        return a;
    }
};

// partial: three numbers for each block.
extern "C" __global__ void choose_common_scale(
        Gradients all, double limit, double* partial, unsigned* done, float* common) {
    __shared__ float scales[16];
    __shared__ double inverses[16];
    if (threadIdx.x < all.count) {
        scales[threadIdx.x] = scale_of(all, threadIdx.x);
        inverses[threadIdx.x] = 1.0 / scales[threadIdx.x];
    }
    __syncthreads();
    Search search = {scales, inverses, {0, 0, 0}};
    for_each_chunk(all, search);
    Found found = over_block<Search>(search.found);
    if (threadIdx.x == 0) {
        partial[3 * blockIdx.x] = found.total;
        partial[3 * blockIdx.x + 1] = found.largest;
        partial[3 * blockIdx.x + 2] = found.scale;
    }
    if (!is_last_block(done)) return;
    for (int i = threadIdx.x; i < gridDim.x; i += THREADS) {
        const volatile double* of_block = partial + 3 * i;
        found = Search::of(found, Found{of_block[0], of_block[1], (float)of_block[2]});
    }
    found = over_block<Search>(found);
    if (threadIdx.x > 0) return;
    float highest = 0;
    for (int k = 0; k < all.count; ++k) highest = max(highest, scales[k]);
    *common = choose(found, highest, limit);
}

template <typename V, typename T> struct Addition {
    const V* factors;
    T* total;

    __device__ void chunk(const Gradients& all, index_t row, index_t begin, int size) {
        V sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        for (int k = 0; k < all.count; ++k) {
            V values[8] = {0, 0, 0, 0, 0, 0, 0, 0};
            load(all, k, row, begin, size, values);
            #pragma unroll
            for (int i = 0; i < 8; ++i) sums[i] += values[i] * factors[k];
        }
        T* to = total + row * all.size + begin;
        const int per_chunk = 16 / sizeof(T);
        const bool is_whole = size == 8 && is_aligned(to);
        #pragma unroll
        for (int i = 0; i < 8; i += per_chunk) {
            Chunk<T> chunk;
            #pragma unroll
            for (int j = 0; j < per_chunk; ++j) {
                store(sums[i + j], &chunk.at[j]);
                if (!is_whole && i + j < size) to[i + j] = chunk.at[j];
            }
            if (is_whole) store_words(chunk.words, to + i);
        }
    }
};

template <typename V, typename T>
__device__ void add(const Gradients& all, const float* common, void* total) {
    __shared__ V factors[16];
    if (threadIdx.x < all.count)
        factors[threadIdx.x] = (double)*common / scale_of(all, threadIdx.x);
    __syncthreads();
    Addition<V, T> addition = {factors, (T*)total};
    for_each_chunk(all, addition);
}

extern "C" __global__ void add_at_common_scale(
        Gradients all, const float* common, void* total, index_t itemsize) {
    if (itemsize == 2) add<float, half_bits>(all, common, total);
    else if (itemsize == 4) add<float, float>(all, common, total);
    else add<double, double>(all, common, total);
}
"""
)
_GRADIENTS = numpy.dtype(
    [('at', 'u8', 16), ('scale', 'u8', 16), ('bits', 'u4', 16), ('itemsize', 'i8', 16)]
    + [('distance', 'i8', 16), ('count', 'i8'), ('rows', 'i8'), ('size', 'i8')]
)


def join(arrays, scales, limit, dtype):
    """Adds gradients in two launches.

    Args:
        arrays (list of :ref:`ndarray`): At least one array, float16, float32 or float64, all of one
            shape, not empty.
        scales (list of float or 0-d array): The total scale that each carries.
        limit (float): What the sum must not exceed in magnitude.
        dtype: Of the sum, which is formed in float32 at least.

    Returns:
        tuple: The sum, and its total scale, a 0-d float32 array.
    """
    while len(arrays) > _ARRAYS_A_LAUNCH:
        wide = numpy.promote_types(dtype, numpy.float32)
        some = arrays[:_ARRAYS_A_LAUNCH], scales[:_ARRAYS_A_LAUNCH]
        total, common = join(*some, formats.get(wide.name).largest, wide)
        arrays = [total, *arrays[_ARRAYS_A_LAUNCH:]]
        scales = [common, *scales[_ARRAYS_A_LAUNCH:]]
    shape = arrays[0].shape
    arrays, row_size = _rows(arrays)
    scales = [gpu.scalar_of(scale) for scale in scales]
    table = numpy.zeros((), _GRADIENTS)
    for k, (array, (scale, bits)) in enumerate(zip(arrays, scales)):
        table['at'][k], table['itemsize'][k] = array.data.ptr, array.itemsize
        table['distance'][k] = array.strides[0] // array.itemsize if array.ndim else 0
        table['scale'][k], table['bits'][k] = scale.data.ptr if on_gpu(scale) else 0, bits
    size = arrays[0].size
    table['count'], table['rows'], table['size'] = len(arrays), size // row_size, row_size
    blocks = gpu.blocks_for(arrays[0])
    partial = cuda.cupy.empty((blocks, 3), numpy.float64)
    common = cuda.cupy.empty((), numpy.float32)
    found = partial, gpu.kept_zeros('done', 1), common
    gpu.launch(_CUDA_JOIN, 'choose_common_scale', blocks, table, float(limit), *found)
    total = cuda.cupy.empty(shape, dtype)
    to = total, total.itemsize
    gpu.launch(_CUDA_JOIN, 'add_at_common_scale', blocks, table, common, *to)
    return total, common


def _rows(arrays):
    """Returns arrays whose rows have no gaps, copies if need be; and the size of those rows.

    It is all of an array where none has gaps. A part of some channels has gaps between samples.
    """
    if all(array.flags.c_contiguous for array in arrays):
        return arrays, arrays[0].size
    arrays = [a if a[0].flags.c_contiguous else cuda.cupy.ascontiguousarray(a) for a in arrays]
    return arrays, math.prod(arrays[0].shape[1:])


def common_scale(maxima, scales, limit):
    """Returns the scale for gradients that are to be added, a 0-d float32 array.

    Args:
        maxima (list of float or 0-d array): The largest magnitude that is stored of each.
        scales (list of float or 0-d array): The total scale that each carries.
        limit (float): What the sum of the maxima must not exceed.
    """
    indices = range(len(maxima))
    highest, looks = 's0', ''
    for k in indices:
        highest = f'max({highest}, s{k})'
        looks += f'look_at(found, x{k} / s{k}, s{k}); found.total += x{k} / s{k};\n'
    return cuda.elementwise(
        ', '.join([f'float64 x{k}' for k in indices] + [f'float32 s{k}' for k in indices])
        + ', float64 limit',
        'float32 common',
        f'Found found = {{0, 0, 0}};\n{looks}common = choose(found, {highest}, limit)',
        'chainerlp_common_scale',
        preamble=_CUDA_FOUND,
    )(*maxima, *scales, limit, cuda.cupy.empty((), numpy.float32))
