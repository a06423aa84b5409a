"""What is counted and measured in arrays, and how a scale is rounded.

Every function takes a NumPy or a CuPy array and never waits for the device: a statistic of a NumPy
array is a float64 scalar, one of a CuPy array a 0-d float64 array that stays where it is.
Statistics are accumulated in float32, as design, section 1, asks; the few operations that turn them
into a scale are done in float64, where a product of maxima is exact, so that CPU and GPU agree.
"""

from chainerlp import formats, rounding

import numpy
from chainer import backend

_SINGLE = formats.FLOAT32
_EXPONENT_FIELD = 2**_SINGLE.exponent_bits  # how many values it has
_EXPONENT_BIAS = _SINGLE.bias
_MANTISSA_BITS = _SINGLE.mantissa_bits
_SUMMED_AT_ONCE = 1 << 13


def largest_magnitude(array):
    """Returns max|x|: 0 for an empty array, NaN if there is a NaN."""
    xp = backend.get_array_module(array)
    if array.size == 0:
        return xp.float64(0)
    if xp is numpy:
        array = rounding.to_float32(array)
    # abs: of an all-zero array the maximum may be -0.
    return xp.abs(xp.maximum(array.max(), -array.min())).astype(numpy.float64)


def second_moment(array):
    """Returns E[x²] over all elements, zeros included: 0 for an empty array."""
    xp = backend.get_array_module(array)
    if array.size == 0:
        return xp.float64(0)
    flat = rounding.to_float32(array).ravel()
    if xp is not numpy:
        return xp.dot(flat, flat).astype(numpy.float64) / array.size
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


def exponent_counts(array):
    """Counts the nonzero elements of a float32 array between the powers of two.

    Args:
        array (:ref:`ndarray`): A float32 array of any shape.

    Returns:
        :ref:`ndarray`: 256 integers; number ``i`` counts the elements with
        2^(i - 127) < |x| <= 2^(i - 126). The upper end belongs to the interval, as a tie with
        the smallest subnormal's half rounds to zero. Inf is counted in number 254, NaN in 255,
        float32's subnormals in 0.
    """
    xp = backend.get_array_module(array)
    bits = (array.view(numpy.int32) & numpy.int32(0x7FFFFFFF)).ravel()
    field = (bits - 1) >> _MANTISSA_BITS  # -1 for zero
    return xp.bincount(field + 1, minlength=_EXPONENT_FIELD + 1)[1:]


def magnitude_counts(array, lowest, highest):
    """Counts the elements of a float32 array by log2 of their magnitude: a histogram.

    Args:
        array (:ref:`ndarray`): A float32 array of any shape.
        lowest (int): The first bin begins above 2^lowest; from -126.
        highest (int): The last bin ends with 2^highest; up to 127.

    Returns:
        :ref:`ndarray`: ``highest - lowest + 4`` integers, which add up to the size of the array:
        the zeros; the nonzero up to 2^lowest; then the bins, of which number ``k`` (from 0) has
        2^(lowest + k) < |x| <= 2^(lowest + k + 1); those above 2^highest, inf included; the NaNs.
    """
    xp = backend.get_array_module(array)
    counts = exponent_counts(array)
    first, end = lowest + _EXPONENT_BIAS, highest + _EXPONENT_BIAS
    ends = [array.size - counts.sum(), counts[:first].sum(), counts[end:-1].sum(), counts[-1]]
    zero, below, above, nan = (xp.reshape(count, 1) for count in ends)
    return xp.concatenate([zero, below, counts[first:end], above, nan])


def smallest_shift(counts, threshold, rate):
    """Returns the power of two that leaves at most a share of elements at or below a threshold.

    Args:
        counts (:ref:`ndarray`): What :func:`exponent_counts` returned.
        threshold (float): A power of two.
        rate (float): The share of the counted elements that may stay at or below it.

    Returns:
        The smallest such power of two, as a scalar of float64; NaN if nothing was counted.
    """
    xp = backend.get_array_module(counts)
    total = counts.sum()
    at_or_below = xp.cumsum(counts)  # number i: at or below 2^(i - 126)
    # All of number i and what lies below it stays lost as long as 2^(i - 126) * shift <= threshold.
    first_kept = (at_or_below <= rate * total).sum()
    exponent = numpy.log2(threshold) + _EXPONENT_BIAS - first_kept
    return xp.where(total > 0, xp.ldexp(xp.float64(1), exponent.astype(numpy.int32)), numpy.nan)


def floor_power_of_two(value):
    """Returns the largest power of two that is at most a positive, finite value."""
    xp = backend.get_array_module(value)
    _, exponent = xp.frexp(value)
    return xp.ldexp(xp.float64(1), exponent - 1)


def count_losses(product, format):
    """Counts what rounding a product to a format loses.

    Args:
        product (:ref:`ndarray`): A float32 array of any shape.
        format (~chainerlp.formats.Format): The format, rounded to as IEEE 754's nearest even.

    Returns:
        tuple: How many nonzero elements become zero, and how many finite ones become inf (or what
        the format has instead).
    """
    xp = backend.get_array_module(product)
    magnitude = xp.abs(product)
    lost = (magnitude <= format.underflow_threshold) & (magnitude > 0)
    with numpy.errstate(over='ignore'):  # float32's own threshold is beyond float32
        overflowed = format.overflows(magnitude) & (magnitude < numpy.inf)
    return xp.count_nonzero(lost), xp.count_nonzero(overflowed)


def all_finite(array):
    """Returns whether an array has neither inf nor NaN, as a bool (NumPy) or a 0-d bool array."""
    if isinstance(array, numpy.ndarray) and array.dtype == numpy.float16:
        exponent = array.view(numpy.uint16) & numpy.uint16(0x7C00)
        return bool((exponent != 0x7C00).all())
    return backend.get_array_module(array).isfinite(array).all()
