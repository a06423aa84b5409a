"""Rounding to any float format, to nearest even, saturating: what enters a low-precision product.

Saturating: a finite value beyond the format's largest number becomes that number, as in hardware
that multiplies float8. Inf and NaN stay what they are, so that an error of the model is seen.
"""

from chainerlp import formats
from chainerlp.float16 import from_float32
from chainerlp.gpu import on_gpu

import numpy
from chainer.backends import cuda

# Small enough for the block and its temporaries to stay in a core's L2 cache.
_BLOCK = 1 << 15
_SINGLE = formats.FLOAT32
_EXPONENT_MASK = numpy.int32(0x7F800000)


def round_saturating(array, format, scale=1.0, saturated=0):
    """Multiplies an array by a scale in float32, and rounds it to a format.

    Args:
        array (:ref:`ndarray`): A float32 array of any shape.
        format (~chainerlp.formats.Format): At most as wide as float32.
        scale (float or 0-d :ref:`ndarray`): The scale; on a GPU it may be on the device.
        saturated (int or 0-d array): How many elements were saturated before.

    Returns:
        tuple: The rounded array, float16 for ``float16``, and float32 for the other formats, whose
        values it holds; and how many elements were saturated in all, an int, or a 0-d array on the
        device (the one that was given, if one was).
    """
    if on_gpu(array):
        return _round_on_gpu(array, format, scale, saturated)
    is_half = format is formats.FLOAT16
    rounded = numpy.empty(array.shape, numpy.float16 if is_half else numpy.float32)
    source, target = numpy.ascontiguousarray(array).reshape(-1), rounded.reshape(-1)
    round_block = _round_block_to_half if is_half else _round_block
    for start in range(0, source.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        scaled = source[block]
        if not (isinstance(scale, float) and scale == 1):
            with numpy.errstate(over='ignore'):
                scaled = scaled * numpy.float32(scale)
        beyond = round_block(scaled, format, target[block])
        if beyond is not None:
            beyond &= numpy.isfinite(source[block])
            target[block][beyond] = numpy.copysign(format.largest, source[block][beyond])
            saturated += int(numpy.count_nonzero(beyond))
    return rounded, saturated


def _round_block_to_half(block, format, target):
    target[...] = from_float32(block, numpy.float16)
    magnitude = target.view(numpy.uint16) & numpy.uint16(0x7FFF)
    return magnitude == 0x7C00 if magnitude.max() >= 0x7C00 else None


def _round_block(block, format, target):
    """Rounds a block of float32 values; returns which are beyond the format, ``None`` if none."""
    magnitude = numpy.abs(block)
    dropped_bits = _SINGLE.mantissa_bits - format.mantissa_bits
    if format.exponent_bits == _SINGLE.exponent_bits:
        bits = magnitude.view(numpy.int32)
        odd = (bits >> dropped_bits) & 1
        bits += odd + numpy.int32((1 << (dropped_bits - 1)) - 1)
        bits &= numpy.int32(-1 << dropped_bits)
    else:
        # Adding and subtracting a power of two whose unit in the last place is the format's makes
        # the float32 adder do the rounding; what is beyond the format must not overflow in it.
        numpy.minimum(magnitude, numpy.float32(2 * format.largest), out=magnitude)
        exponent = magnitude.view(numpy.int32) & _EXPONENT_MASK
        smallest = numpy.float32(format.smallest_normal).view(numpy.int32)
        numpy.maximum(exponent, smallest, out=exponent)
        exponent += numpy.int32(dropped_bits << _SINGLE.mantissa_bits)
        rounder = exponent.view(numpy.float32)
        magnitude += rounder
        magnitude -= rounder
    beyond = None
    if not magnitude.max() <= numpy.float32(format.largest):  # or NaN
        beyond = magnitude > numpy.float32(format.largest)
        is_special = ~numpy.isfinite(block)
        magnitude[is_special] = numpy.abs(block[is_special])
    numpy.copysign(magnitude, block, out=target)
    return beyond


def _round_on_gpu(array, format, scale, saturated):
    if not on_gpu(saturated):
        saturated = cuda.cupy.full((), saturated, numpy.uint64)
    if format is formats.FLOAT16:
        kernel = cuda.elementwise(
            'float32 x, float32 scale',
            'float16 y, raw uint64 saturated',
            """
            y = x * scale;
            if (isinf((float)y) && isfinite(x)) {
                y = copysignf(65504.0f, x);
                atomicAdd(&saturated[0], 1ull);
            }
            """,
            'chainerlp_round_to_half_saturating',
        )
        return kernel(array, scale, cuda.cupy.empty(array.shape, numpy.float16), saturated)
    kernel = cuda.elementwise(
        'float32 x, float32 scale, int32 mantissa_bits, int32 smallest_exponent, float64 largest',
        'float32 y, raw uint64 saturated',
        """
        const float value = x * scale;
        y = value;
        if (isfinite(x) && value != 0) {
            int exponent = 0;
            if (isfinite(value)) frexp((double)value, &exponent);
            const int unit = max(exponent - 1, smallest_exponent) - mantissa_bits;
            double magnitude = ldexp(rint(ldexp(fabs((double)value), -unit)), unit);
            if (magnitude > largest) {
                magnitude = largest;
                atomicAdd(&saturated[0], 1ull);
            }
            y = copysign(magnitude, (double)value);
        }
        """,
        'chainerlp_round_saturating',
    )
    rounded = cuda.cupy.empty(array.shape, numpy.float32)
    constants = format.mantissa_bits, 1 - format.bias, format.largest
    return kernel(array, scale, *constants, rounded, saturated)
