"""Rounding of float32 arrays, times a scale, to float16 or any other format: nearest even, once.

NumPy converts halves one element at a time: in 1.6 ns each to float32 and 4.7 ns from it, and in 8
and 64 ns where they are subnormal (NumPy 2.4). A table and integer operations on whole blocks take
about 1 ns, whatever the values, and give the same bits. CuPy's ``astype`` is the hardware's.
"""

from chainerlp import formats
from chainerlp.gpu import elementwise_scalars, on_gpu

import numpy
from chainer.backends import cuda

# Small enough for the block and its temporaries to stay in a core's L2 cache.
_BLOCK = 1 << 15

_HALF = formats.FLOAT16
_SINGLE = formats.FLOAT32
_EXPONENT_MASK = numpy.int32(0x7F800000)
# A half's exponent and fraction, moved to a single's place, read as the half's value times this.
_REBIAS = numpy.float32(2.0 ** (_HALF.bias - _SINGLE.bias))
_HALF_VALUES = numpy.arange(1 << 16, dtype=numpy.uint16).view(numpy.float16).astype(numpy.float32)


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
        rounded = numpy.empty(array.shape, numpy.float16)
        for source, target in _blocks(array, rounded):
            _round_block_to_half(source, target)
        return rounded
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
        parameter, loop_prep, (scale,) = elementwise_scalars(scale=scale)
        kernel = cuda.elementwise(
            f'T x, {parameter}',
            'U y',
            'y = (float)x * scale',
            'chainerlp_scale_and_round',
            loop_prep=loop_prep,
        )
        return kernel(array, scale, cuda.cupy.empty(array.shape, dtype))
    array *= scale
    return from_float32(array, dtype)


def round_saturating(array, format, scale=1.0, saturated=0, inverse=None):
    """Multiplies an array by a scale in float32, and rounds it to a format, saturating.

    A finite value beyond the format's largest number becomes that number, as in hardware that
    multiplies float8. Inf and NaN stay what they are, so that an error of the model is seen.

    Args:
        array (:ref:`ndarray`): A float32 array of any shape.
        format (~chainerlp.formats.Format): At most as wide as float32.
        scale (float or 0-d :ref:`ndarray`): The scale; on a GPU it may be on the device.
        saturated (int or 0-d array): How many elements were saturated before.
        inverse (0-d :ref:`ndarray`): On a GPU a float32 array that 1 / ``scale`` is written to, too
            (unless ``array`` is empty), which saves a launch. A number is none.

    Returns:
        tuple: The rounded array, which has the format's values in float32 (float16 on a GPU, for
        ``float16``); and how many elements were saturated in all, an int, or a 0-d array on the
        device (the one that was given, if one was).
    """
    if on_gpu(array):
        return _round_on_gpu(array, format, scale, saturated, inverse)
    saturated = int(saturated)  # of a model that was moved from a GPU
    rounded = numpy.empty(array.shape, numpy.float32)
    for source, target in _blocks(array, rounded):
        scaled = source
        if not (isinstance(scale, float) and scale == 1):
            with numpy.errstate(over='ignore'):
                scaled = source * numpy.float32(scale)
        beyond = _round_block(scaled, target, format)
        if beyond is not None:
            beyond &= numpy.isfinite(source)
            target[beyond] = numpy.copysign(format.largest, source[beyond])
            saturated += int(numpy.count_nonzero(beyond))
    return rounded, saturated


def _blocks(array, rounded):
    """Yields the elements of an array, and the places for what they are rounded to, by blocks."""
    source, target = numpy.ascontiguousarray(array).reshape(-1), rounded.reshape(-1)
    for start in range(0, source.size, _BLOCK):
        yield source[start : start + _BLOCK], target[start : start + _BLOCK]


def _round_block_to_half(block, target):
    magnitude = numpy.abs(block)
    if magnitude.max() < _HALF.overflow_threshold:
        _round_magnitude(magnitude, _HALF)
        magnitude *= _REBIAS
        bits = magnitude.view(numpy.int32) >> (_SINGLE.mantissa_bits - _HALF.mantissa_bits)
        sign = (block.view(numpy.int32) >> 16) & numpy.int32(0x8000)
        target.view(numpy.uint16)[...] = bits | sign
    else:  # inf, NaN, or on the way to inf
        with numpy.errstate(over='ignore'):
            target[...] = block


def _round_block(block, target, format):
    """Rounds a block of float32 values; returns which are beyond the format, or ``None``."""
    magnitude = numpy.abs(block)
    if format.exponent_bits == _SINGLE.exponent_bits:
        dropped_bits = _SINGLE.mantissa_bits - format.mantissa_bits
        bits = magnitude.view(numpy.int32)
        odd = (bits >> dropped_bits) & 1
        bits += odd + numpy.int32((1 << (dropped_bits - 1)) - 1)
        bits &= numpy.int32(-1 << dropped_bits)
    else:  # what is beyond the format must not overflow in the adder
        numpy.minimum(magnitude, numpy.float32(2 * format.largest), out=magnitude)
        _round_magnitude(magnitude, format)
    beyond = None
    if not magnitude.max() <= numpy.float32(format.largest):  # or NaN
        beyond = magnitude > numpy.float32(format.largest)
        is_special = ~numpy.isfinite(block)
        magnitude[is_special] = numpy.abs(block[is_special])
    numpy.copysign(magnitude, block, out=target)
    return beyond


def _round_magnitude(magnitude, format):
    """Rounds float32 magnitudes in place.

    Adding and subtracting a power of two whose unit in the last place is the format's (that of the
    smallest normal number, for the subnormals) makes the float32 adder do the rounding.
    """
    exponent = magnitude.view(numpy.int32) & _EXPONENT_MASK
    smallest = numpy.float32(format.smallest_normal).view(numpy.int32)
    numpy.maximum(exponent, smallest, out=exponent)
    dropped_bits = _SINGLE.mantissa_bits - format.mantissa_bits
    exponent += numpy.int32(dropped_bits << _SINGLE.mantissa_bits)
    rounder = exponent.view(numpy.float32)
    magnitude += rounder
    magnitude -= rounder


def _round_on_gpu(array, format, scale, saturated, inverse):
    if not on_gpu(saturated) or saturated.device != array.device:
        saturated = int(saturated)
        saturated = cuda.cupy.full((), saturated, numpy.uint64)
    parameter, loop_prep, (scale,) = elementwise_scalars(scale=scale)
    if not on_gpu(inverse):
        inverse = cuda.cupy.empty((), numpy.float32)
    if format is formats.FLOAT16:
        kernel = cuda.elementwise(
            f'float32 x, {parameter}',
            'float16 y, raw uint64 saturated, raw float32 inverse',
            """
            if (i == 0) inverse[0] = 1 / scale;
            y = x * scale;
            if (isinf((float)y) && isfinite(x)) {
                y = copysignf(65504.0f, x);
                atomicAdd(&saturated[0], 1ull);
            }
            """,
            'chainerlp_round_to_half_saturating',
            loop_prep=loop_prep,
        )
        return kernel(
            array, scale, cuda.cupy.empty(array.shape, numpy.float16), saturated, inverse
        )[:2]
    kernel = cuda.elementwise(
        f'float32 x, {parameter}, int32 mantissa_bits, int32 smallest_exponent, float64 largest',
        'float32 y, raw uint64 saturated, raw float32 inverse',
        """
        if (i == 0) inverse[0] = 1 / scale;
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
        loop_prep=loop_prep,
    )
    rounded = cuda.cupy.empty(array.shape, numpy.float32)
    constants = format.mantissa_bits, 1 - format.bias, format.largest
    return kernel(array, scale, *constants, rounded, saturated, inverse)[:2]
