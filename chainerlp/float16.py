"""Conversion between float16 and float32, and scaling with one rounding.

NumPy converts halves one element at a time: in 1.6 ns each to float32 and 4.7 ns from it, and in 8
and 64 ns where they are subnormal (NumPy 2.4). A table and integer operations on whole blocks take
about 1 ns, whatever the values, and give the same bits. CuPy's ``astype`` is the hardware's.
"""

from chainerlp import formats
from chainerlp.gpu import on_gpu

import numpy
from chainer.backends import cuda

# Small enough for the block and its temporaries to stay in a core's L2 cache.
_BLOCK = 1 << 15

_HALF = formats.FLOAT16
_SINGLE = formats.FLOAT32
_MANTISSA_SHIFT = _SINGLE.mantissa_bits - _HALF.mantissa_bits
# A half's exponent and fraction, moved to a single's place, read as the half's value times this.
_REBIAS = numpy.float32(2.0 ** (_HALF.bias - _SINGLE.bias))
_SINGLE_EXPONENT_MASK = numpy.int32(0x7F800000)
_SMALLEST_NORMAL_BITS = numpy.float32(_HALF.smallest_normal).view(numpy.int32)
_ROUNDER_SHIFT = numpy.int32(_MANTISSA_SHIFT << _SINGLE.mantissa_bits)
_EVERY_HALF = numpy.arange(1 << 16, dtype=numpy.uint16).view(numpy.float16)
_HALF_VALUES = _EVERY_HALF.astype(numpy.float32)


def to_float32(array):
    """Converts an array to float32; exact for float16 (inf and NaN stay).

    Args:
        array (:ref:`ndarray`): A float array of any shape; returned itself if it is float32.
    """
    if array.dtype == numpy.float16 and not on_gpu(array):
        values = _HALF_VALUES.take(array.view(numpy.uint16), mode='clip')
        return numpy.asarray(values)  # of a 0-d array, `take` makes a scalar
    return array.astype(numpy.float32, copy=False)


def from_float32(array, dtype):
    """Rounds a float32 array to a dtype, to nearest even; magnitudes from 65520 become inf.

    Args:
        array (:ref:`ndarray`): A float32 array of any shape; returned itself if ``dtype`` is its.
        dtype: The float dtype to round to.
    """
    if array.dtype == numpy.float32 and dtype == numpy.float16 and not on_gpu(array):
        return _round_to_half(array)
    with numpy.errstate(over='ignore'):
        return array.astype(dtype, copy=False)


def scale_and_round(array, scale, dtype):
    """Multiplies an array by a scale in float32 and rounds the result to a dtype, once.

    Args:
        array (:ref:`ndarray`): A float32 array of any shape, which may be overwritten. On a GPU it
            may be float16, too.
        scale (float or 0-d :ref:`ndarray`): The scale. On a GPU it may be a 0-d float32 array,
            which the kernel reads there.
        dtype: float16 or float32 (or, on the CPU, float64).
    """
    if isinstance(scale, float) and scale == 1:
        return from_float32(array, dtype)
    if on_gpu(array):
        kernel = cuda.elementwise(
            'T x, float32 scale', 'U y', 'y = (float)x * scale', 'chainerlp_scale_and_round'
        )
        return kernel(array, scale, cuda.cupy.empty(array.shape, dtype))
    array *= scale
    return from_float32(array, dtype)


def _round_to_half(array):
    rounded = numpy.empty(array.shape, numpy.float16)
    source = numpy.ascontiguousarray(array).reshape(-1)
    target = rounded.reshape(-1)
    for start in range(0, source.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        magnitude = numpy.abs(source[block])
        if magnitude.max() < _HALF.overflow_threshold:
            target[block].view(numpy.uint16)[...] = _finite_half_bits(source[block], magnitude)
        else:  # inf, NaN, or on the way to inf
            with numpy.errstate(over='ignore'):
                target[block] = source[block]
    return rounded


def _finite_half_bits(block, magnitude):
    # Adding and subtracting a power of two whose unit in the last place is that of the half (of the
    # smallest normal half, for the subnormals) makes the float32 adder do the rounding.
    exponent = magnitude.view(numpy.int32) & _SINGLE_EXPONENT_MASK
    numpy.maximum(exponent, _SMALLEST_NORMAL_BITS, out=exponent)
    exponent += _ROUNDER_SHIFT
    rounder = exponent.view(numpy.float32)
    magnitude += rounder
    magnitude -= rounder
    magnitude *= _REBIAS
    bits = magnitude.view(numpy.int32) >> _MANTISSA_SHIFT
    sign = (block.view(numpy.int32) >> 16) & numpy.int32(0x8000)
    return bits | sign
