"""Arrays that carry a total scale, and the one place where two scales meet.

Where paths meet (a residual sum, a picked feature map, a weight used twice) gradients arrive with
total scales of their own. They are brought to that of the largest true gradient, or to a larger one
of theirs as far as it leaves the sum under 1, in the middle of float16's range; and they are added
in float32. If the sum leaves less room below the largest number of the format than a margin, it is
brought to the largest power of two at which it does not. So a tiny branch with a huge scale never
lifts the main path to where what comes next would overflow. Design, section 1.
"""

import dataclasses
import math

from chainerlp import formats, gpu, join_kernels
from chainerlp.gpu import on_gpu
from chainerlp.rounding import from_float32, to_float32
from chainerlp.statistics import largest_magnitude
from chainerlp.types import Array, Scale

import numpy
from chainer.backends import cuda

MARGIN = 4.0
"""float: Powers of two that are left below the format's largest number by default."""

_MIDDLE = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class ScaledArray:
    """An array that holds its total scale times a gradient.

    Attributes:
        array (:ref:`ndarray`): What is stored: float16, float32 or float64, of any shape.
        scale (float or 0-d :ref:`ndarray`): The total scale; on a GPU it may be a 0-d float32 array
            there.
    """

    array: Array
    scale: Scale = 1.0

    def to(self, scale):
        """Returns the same gradient at another total scale, in the same dtype; self if it is it."""
        if are_same([self.scale, scale]):
            return self
        if on_gpu(self.array):
            return ScaledArray(_rescale_on_gpu(self.array, self.scale, scale), scale)
        with numpy.errstate(over='ignore'):
            array = from_float32(_at_scale(self, scale), self.array.dtype)
        return ScaledArray(array, scale)

    def true(self):
        """Returns the gradient itself as a new array, float32 (float64 if the array is)."""
        if not on_gpu(self.array):
            array = _at_scale(self, 1.0)
            return array.copy() if array is self.array else array
        dtype = numpy.promote_types(self.array.dtype, numpy.float32)
        if are_same([self.scale, 1.0]):
            return self.array.astype(dtype)
        true = cuda.cupy.empty(self.array.shape, dtype)
        return _rescale_on_gpu(self.array, self.scale, 1.0, true)


def join(gradients, margin=MARGIN):
    """Adds gradients of one array.

    Args:
        gradients (list of ScaledArray): At least one; all of one shape and dtype.
        margin (float): Powers of two between the sum and the largest number of the format.

    Returns:
        ScaledArray: The sum, in the arrays' dtype. Arrays of float32 or float64 that carry the same
        scale are just added, from left to right, as Chainer does.
    """
    if len(gradients) == 1:
        return gradients[0]
    arrays = [gradient.array for gradient in gradients]
    scales = [gradient.scale for gradient in gradients]
    dtype = arrays[0].dtype
    with numpy.errstate(over='ignore', invalid='ignore'):  # a sum that is not finite says so itself
        if are_same(scales) and dtype != numpy.float16:
            return ScaledArray(_as_array(sum(arrays[1:], arrays[0])), scales[0])
        return _join_to_fit(gradients, dtype, margin)


def round_to_fit(gradient, dtype, margin=MARGIN):
    """Rounds a gradient at its scale, or at the largest power of two at which it keeps the margin.

    Args:
        gradient (ScaledArray): Of float32.
        dtype: The narrower dtype.
        margin (float): As for :func:`join`.
    """
    return _join_to_fit([gradient], numpy.dtype(dtype), margin)


def _join_to_fit(gradients, dtype, margin):
    limit = formats.get(dtype.name).largest * 2.0**-margin
    if on_gpu(gradients[0].array):
        return _join_on_gpu(gradients, limit, dtype)
    total = _sum_that_fits(gradients, limit)
    return ScaledArray(from_float32(total.array, dtype), total.scale)


def _sum_that_fits(gradients, limit):
    """Returns the sum at the scale that is chosen, in float32 (or the arrays' wider dtype)."""
    scale = _scale_of_largest(gradients)
    total = _as_array(sum(_at_scale(gradient, scale) for gradient in gradients))
    largest = float(largest_magnitude(total))
    if not math.isfinite(largest):  # or only at this scale, where float32 itself is too narrow
        lower = _common_scale(gradients, limit)
        return ScaledArray(_as_array(sum(_at_scale(g, lower) for g in gradients)), lower)
    highest = max(gradient.scale for gradient in gradients)
    common = _chosen(largest / scale, scale, highest, limit)
    if common != scale:
        total *= common / scale
    return ScaledArray(total, common)


def _chosen(total, scale, highest, limit):
    """Returns the scale for a sum.

    Args:
        total (float): The largest magnitude of the true sum.
        scale (float): The scale of the largest true gradient.
        highest (float): The largest scale.
        limit (float): What the sum must not exceed.
    """
    if not math.isfinite(total):
        return scale
    if total * scale > limit:
        return float(formats.floor_power_of_two(limit / total))
    if total == 0:
        return highest
    return max(scale, min(highest, float(formats.floor_power_of_two(_MIDDLE / total))))


def _scale_of_largest(gradients):
    """Returns the scale of the largest true gradient; the larger scale of equals."""
    if are_same([gradient.scale for gradient in gradients]):
        return gradients[0].scale
    with numpy.errstate(all='ignore'):
        largest = [float(largest_magnitude(g.array)) / g.scale for g in gradients]
    return max((true, g.scale) for true, g in zip(largest, gradients))[1]


def align(gradients, margin=MARGIN):
    """Brings gradients to one total scale without adding them, where a function takes several.

    Args:
        gradients (list of ScaledArray): At least one, of any shapes.
        margin (float): As for :func:`join`.

    Returns:
        list of ScaledArray: The same gradients. The scale is chosen as for :func:`join`, from the
        sum of their maxima, since the function may add them.
    """
    if are_same([gradient.scale for gradient in gradients]):
        return gradients
    largest_of_formats = min(
        formats.get(gradient.array.dtype.name).largest for gradient in gradients
    )
    common = _common_scale(gradients, largest_of_formats * 2.0**-margin)
    return [gradient.to(common) for gradient in gradients]


def _common_scale(gradients, limit):
    """Returns the scale at which gradients are aligned; see :func:`align`."""
    maxima = [largest_magnitude(gradient.array) for gradient in gradients]
    return common_scale(maxima, [gradient.scale for gradient in gradients], limit)


def common_scale(maxima, scales, limit):
    """Returns the scale for gradients that are to be added; see :func:`align`.

    Args:
        maxima (list of float or 0-d array): The largest magnitude that is stored of each.
        scales (list of float or 0-d array): The total scale that each carries.
        limit (float): What the sum of the maxima must not exceed.
    """
    if any(map(on_gpu, maxima)):
        return join_kernels.common_scale(maxima, scales, limit)
    with numpy.errstate(all='ignore'):
        largest = [float(maximum) / scale for maximum, scale in zip(maxima, scales)]
    return _chosen(sum(largest), max(zip(largest, scales))[1], max(scales), limit)


def _at_scale(gradient, scale):
    array = gradient.array
    if array.dtype == numpy.float16:
        array = to_float32(array)
    if are_same([gradient.scale, scale]):
        return array
    return _as_array(array * (scale / gradient.scale)).astype(array.dtype, copy=False)


def _as_array(value):
    # NumPy turns the result of an operation on 0-d arrays into a scalar.
    return numpy.asarray(value) if isinstance(value, numpy.generic) else value


def are_same(scales):
    """Returns whether total scales are known to be the same, without waiting for a device."""
    # Comparing device arrays by value would wait for the device; one that was handed on is the
    # same object.
    first = scales[0]
    return all(
        scale is first or (isinstance(scale, float) and isinstance(first, float) and scale == first)
        for scale in scales[1:]
    )


def _rescale_on_gpu(array, scale, target, out=None):
    compute = _type_of_sums(array.dtype)
    parameters, loop_prep, numbers = gpu.elementwise_scalars(scale=scale, target=target)
    rescale = cuda.elementwise(
        f'T x, {parameters}',
        'U y',
        f'y = ({compute})x * factor',
        'chainerlp_rescale',
        loop_prep=f'{loop_prep}\nconst {compute} factor = (double)target / scale;',
    )
    return rescale(array, *numbers, cuda.cupy.empty_like(array) if out is None else out)


def _join_on_gpu(gradients, limit, dtype):
    if gradients[0].array.size == 0:
        return gradients[0]
    arrays, scales = [g.array for g in gradients], [g.scale for g in gradients]
    return ScaledArray(*join_kernels.join(arrays, scales, limit, dtype))


def _type_of_sums(dtype):
    return 'double' if dtype == numpy.float64 else 'float'
