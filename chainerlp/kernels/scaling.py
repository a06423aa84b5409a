"""Multiplying by a scale and rounding, in one pass."""

from chainerlp import rounding
from chainerlp.kernels import cuda

import numpy
from chainer import backend


def scaled(product, scale, dtype):
    """Returns a float32 product times a scale, rounded to a dtype once.

    Args:
        product (:ref:`ndarray`): A float32 array of any shape, which may be overwritten.
        scale (float or 0-d array): The scale; a 0-d array on the product's device.
        dtype: float16 or float32 (or, on the CPU, float64).

    Returns:
        :ref:`ndarray`: An array of ``dtype``.
    """
    if isinstance(scale, float) and scale == 1:
        return rounding.from_float32(product, dtype)
    if backend.get_array_module(product) is not numpy:
        return scaled_on_device(product, scale, dtype)
    product *= scale
    return rounding.from_float32(product, dtype)


_SCALING = r"""
template <typename T> struct alignas(4 * sizeof(T)) Four { T at[4]; };

template <typename X, typename Y> __device__ void write_scaled(
        const X* x, index_t size, const float* scale, double scale_by_value, Y* y) {
    const float factor = scale ? *scale : (float)scale_by_value;
    index_t done = 0;
    if (is_aligned(x) && is_aligned(y)) {
        #pragma unroll 4
        for (index_t i = first_index(); i < size / 4; i += all_threads()) {
            const Four<X> read = ((const Four<X>*)x)[i];
            Four<Y> written;
            #pragma unroll
            for (int k = 0; k < 4; ++k) store(value_of(read.at[k]) * factor, &written.at[k]);
            ((Four<Y>*)y)[i] = written;
        }
        done = size / 4 * 4;
    }
    for (index_t i = done + first_index(); i < size; i += all_threads())
        store(value_of(x[i]) * factor, y + i);
}

#define WRITE_SCALED(X, Y, NAME) extern "C" __global__ void NAME( \
        const X* x, index_t size, const float* scale, double scale_by_value, Y* y) { \
    write_scaled(x, size, scale, scale_by_value, y); \
}
WRITE_SCALED(float, half_bits, write_scaled_float_half)
WRITE_SCALED(float, float, write_scaled_float_float)
WRITE_SCALED(half_bits, half_bits, write_scaled_half_half)
"""


def scaled_on_device(array, scale, dtype):
    """:func:`scaled` by a kernel: one pass, in which a scale on the device stays there.

    It takes float16 arrays, too, if ``dtype`` is float16.
    """
    xp = backend.get_array_module(array)
    y = xp.empty(array.shape, dtype)
    array = xp.ascontiguousarray(array)
    cuda.launch(
        _SCALING,
        f'write_scaled_{cuda.suffix(array.dtype)}_{cuda.suffix(dtype)}',
        cuda.blocks_for(array),
        array,
        array.size,
        *cuda.scale_arguments(scale),
        y,
    )
    return y
