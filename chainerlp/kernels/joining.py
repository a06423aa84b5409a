"""Adding arrays that carry different scales: the scale of the sum, and the sum."""

from chainerlp import formats
from chainerlp.kernels import cuda
from chainerlp.kernels.choice import FLOOR_POWER_OF_TWO, floor_power_of_two
from chainerlp.kernels.statistics import largest_magnitude, on_device

import numpy
from chainer import backend

ARRAYS_A_LAUNCH = 8


def common_scale(arrays, scales):
    """Returns the scale at which arrays can be added without an overflow.

    That is the largest of their scales at which the sum of their maxima stays in the format, or the
    largest power of two at which it does. Design, section 1.

    Args:
        arrays (list of :ref:`ndarray`): Each holds its scale times a gradient.
        scales (list): Their total scales: floats, or 0-d arrays on the device.

    Returns:
        float or 0-d array: The scale.
    """
    limit = min(formats.get(array.dtype.name).largest for array in arrays)
    if takes(arrays):
        return common_scale_on_device(arrays, scales, limit)
    xp = backend.get_array_module(*arrays)
    largest_scale = scales[0]
    for scale in scales[1:]:
        largest_scale = xp.maximum(largest_scale, scale)
    with numpy.errstate(all='ignore'):
        true_sum = sum(largest_magnitude(a) / s for a, s in zip(arrays, scales))
        fits = floor_power_of_two(xp.asarray(limit / true_sum))
        is_free = ~(true_sum * largest_scale > limit) | ~xp.isfinite(true_sum)
        common = xp.where(is_free, largest_scale, fits)
    return float(common) if xp is numpy else common


def takes(arrays):
    """Returns whether the kernels take these arrays; what they don't is left to ``xp``."""
    is_on_device = not isinstance(arrays[0], numpy.ndarray)
    return is_on_device and fits_a_launch(arrays)


def fits_a_launch(arrays):
    """Returns whether the kernels have a place and a type for each of these arrays."""
    return len(arrays) <= ARRAYS_A_LAUNCH and all(a.dtype.itemsize <= 4 for a in arrays)


_JOINING = (
    FLOOR_POWER_OF_TWO
    + r"""
struct Arrivals {
    const void* array[8];
    const double* statistics[8];  // the second is the largest magnitude
    const float* scale[8];  // null: it is a number of the host's
    double scale_by_value[8];
    index_t count;
};

__device__ inline double scale_of(const Arrivals& arrivals, int k) {
    return arrivals.scale[k] ? *arrivals.scale[k] : arrivals.scale_by_value[k];
}

extern "C" __global__ void choose_common(Arrivals arrivals, double limit, float* common) {
    if (first_index() != 0) return;
    double largest_scale = 0, true_sum = 0;
    for (int k = 0; k < arrivals.count; ++k) {
        const double scale = scale_of(arrivals, k);
        largest_scale = Largest::of(largest_scale, scale);
        true_sum += arrivals.statistics[k][1] / scale;
    }
    const bool is_finite = true_sum - true_sum == 0;
    const bool fits = !(is_finite && true_sum * largest_scale > limit);
    *common = fits ? largest_scale : floor_power_of_two(limit / true_sum);
}

template <typename T> __device__ void add_at(
        const Arrivals& arrivals, index_t size, const float* common, T* sum) {
    float factors[8];
    const void* arrays[8];
    bool aligned = is_aligned(sum);
    #pragma unroll
    for (int k = 0; k < 8; ++k) {
        if (k >= arrivals.count) break;
        arrays[k] = arrivals.array[k];
        factors[k] = (float)(*common / scale_of(arrivals, k));
        aligned &= is_aligned(arrays[k]);
    }
    const int per_chunk = 16 / sizeof(T);
    const index_t chunks = aligned ? size / per_chunk : 0;
    for (index_t i = first_index(); i < chunks; i += all_threads()) {
        float total[per_chunk] = {0};
        #pragma unroll
        for (int k = 0; k < 8; ++k) {
            if (k >= arrivals.count) break;
            const Chunk<T> chunk = ((const Chunk<T>*)arrays[k])[i];
            #pragma unroll
            for (int j = 0; j < per_chunk; ++j) total[j] += value_of(chunk.at[j]) * factors[k];
        }
        Chunk<T> rounded;
        #pragma unroll
        for (int j = 0; j < per_chunk; ++j) store(total[j], &rounded.at[j]);
        ((Chunk<T>*)sum)[i] = rounded;
    }
    for (index_t i = chunks * per_chunk + first_index(); i < size; i += all_threads()) {
        float total = 0;
        for (int k = 0; k < arrivals.count; ++k)
            total += value_of(((const T*)arrays[k])[i]) * factors[k];
        store(total, sum + i);
    }
}

extern "C" __global__ void add_half(
        Arrivals arrivals, index_t size, const float* common, half_bits* sum) {
    add_at(arrivals, size, common, sum);
}

extern "C" __global__ void add_float(
        Arrivals arrivals, index_t size, const float* common, float* sum) {
    add_at(arrivals, size, common, sum);
}
"""
)
_ARRIVALS = numpy.dtype(
    [
        ('array', numpy.uint64, ARRAYS_A_LAUNCH),
        ('statistics', numpy.uint64, ARRAYS_A_LAUNCH),
        ('scale', numpy.uint64, ARRAYS_A_LAUNCH),
        ('scale_by_value', numpy.float64, ARRAYS_A_LAUNCH),
        ('count', numpy.int64),
    ]
)


def common_scale_on_device(arrays, scales, limit):
    """:func:`common_scale` by kernels: a pass over each array, and one that chooses."""
    measured = [on_device(array).values for array in arrays]
    common = backend.get_array_module(arrays[0]).empty((), numpy.float32)
    table, kept = _table(arrays, scales, measured)
    cuda.launch(_JOINING, 'choose_common', 1, table, float(limit), common)
    del kept
    return common


def joined_on_device(arrays, scales, common):
    """Returns the sum of arrays at a common scale, in their dtype: one fused pass.

    Args:
        arrays (list of :ref:`ndarray`): Up to 8 arrays of one shape and dtype, float16 or float32.
        scales (list): Their total scales: floats, or 0-d arrays on the device.
        common (0-d array): The scale that the sum is to carry, float32.
    """
    xp = backend.get_array_module(arrays[0])
    total = xp.empty(arrays[0].shape, arrays[0].dtype)
    arrays = [xp.ascontiguousarray(array) for array in arrays]
    table, kept = _table(arrays, scales)
    kernel = f'add_{cuda.suffix(total.dtype)}'
    cuda.launch(_JOINING, kernel, cuda.blocks_for(total), table, total.size, common, total)
    del kept
    return total


def _table(arrays, scales, measured=()):
    """Returns the struct of arrivals, and what must stay alive until the kernel is launched."""
    table = numpy.zeros((), _ARRIVALS)
    table['count'] = len(arrays)
    kept = []
    for k, (array, scale) in enumerate(zip(arrays, scales)):
        pointer, value = cuda.scale_arguments(scale)
        table['array'][k] = cuda.address(array)
        table['scale'][k] = 0 if pointer is None else cuda.address(pointer)
        table['scale_by_value'][k] = value
        kept.append(pointer)
    for k, values in enumerate(measured):
        table['statistics'][k] = cuda.address(values)
    return table, kept
