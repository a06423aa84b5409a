"""Arrays that carry a total scale, and the one place where two scales meet.

Where paths meet (a residual sum, a picked feature map, a weight used twice) gradients arrive with
total scales of their own. They are brought to the largest of these at which their sum stays in the
format, or to the largest power of two at which it does, and are added in float32. Design, section
1.
"""

import dataclasses

from chainerlp import formats
from chainerlp.float16 import from_float32, to_float32
from chainerlp.gpu import on_gpu
from chainerlp.statistics import largest_magnitude

import numpy
from chainer.backends import cuda

# What one launch of a kernel adds; more are added in several.
_ARRAYS_A_LAUNCH = 16


@dataclasses.dataclass(frozen=True, eq=False)
class ScaledArray:
    """An array that holds its total scale times a gradient.

    Attributes:
        array (:ref:`ndarray`): What is stored: float16, float32 or float64, of any shape.
        scale (float or 0-d :ref:`ndarray`): The total scale; on a GPU it may be a 0-d float32 array
            there.
    """

    array: object
    scale: object = 1.0

    def to(self, scale):
        """Returns the same gradient at another total scale, in the same dtype; self if it is it."""
        if _are_same([self.scale, scale]):
            return self
        if on_gpu(self.array):
            return ScaledArray(_rescale_on_gpu(self.array, self.scale, scale), scale)
        with numpy.errstate(over='ignore'):
            array = from_float32(_at_scale(self, scale), self.array.dtype)
        return ScaledArray(array, scale)

    def true(self):
        """Returns the gradient itself as a new array, float32 (float64 if the array is)."""
        dtype = numpy.promote_types(self.array.dtype, numpy.float32)
        true = self.array.astype(dtype)
        if not _are_same([self.scale, 1.0]):
            true /= self.scale
        return true


def gradient_of(param):
    """Returns the gradient that a parameter holds, a :class:`ScaledArray`, or ``None``.

    Args:
        param (~chainer.Variable): A parameter, or another variable with a gradient.
    """
    if param.grad is None:
        return None
    return ScaledArray(param.grad, 1.0 if param._loss_scale is None else param._loss_scale)


def set_gradient(param, gradient):
    """Gives a parameter a gradient, whose scale goes to where Chainer's update rules look for it.

    Args:
        param (~chainer.Variable): A parameter, or another variable.
        gradient (ScaledArray): The gradient.
    """
    param.grad = gradient.array
    param._loss_scale = gradient.scale


def join(gradients):
    """Adds gradients of one array.

    Args:
        gradients (list of ScaledArray): At least one; all of one shape and dtype.

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
        if _are_same(scales) and dtype != numpy.float16:
            return ScaledArray(_as_array(sum(arrays[1:], arrays[0])), scales[0])
        if on_gpu(arrays[0]):
            return _join_on_gpu(gradients, dtype)
        total = _sum_that_fits(gradients, formats.get(dtype.name).largest)
        return ScaledArray(from_float32(total.array, dtype), total.scale)


def _sum_that_fits(gradients, limit):
    """Returns the sum at the scale that is chosen, in float32 (or the arrays' wider dtype)."""
    scale = max(gradient.scale for gradient in gradients)
    total = _as_array(sum(_at_scale(gradient, scale) for gradient in gradients))
    largest = float(largest_magnitude(total))
    if largest <= limit:
        return ScaledArray(total, scale)
    if numpy.isfinite(largest):
        fitting = float(formats.floor_power_of_two(limit / (largest / scale)))
        total *= fitting / scale
        return ScaledArray(total, fitting)
    # Not finite, or only so at this scale, which may leave even float32's range.
    lower = _common_scale(gradients, limit)
    return ScaledArray(_as_array(sum(_at_scale(gradient, lower) for gradient in gradients)), lower)


def align(gradients):
    """Brings gradients to one total scale without adding them, where a function takes several.

    Args:
        gradients (list of ScaledArray): At least one, of any shapes.

    Returns:
        list of ScaledArray: The same gradients. The scale is chosen as for :func:`join`, from the
        sum of their maxima, since the function may add them.
    """
    if _are_same([gradient.scale for gradient in gradients]):
        return gradients
    limit = min(formats.get(gradient.array.dtype.name).largest for gradient in gradients)
    common = _common_scale(gradients, limit)
    return [gradient.to(common) for gradient in gradients]


def _common_scale(gradients, limit):
    """Returns the largest of the scales, or power of two, at which the sum of the maxima fits."""
    scales = [gradient.scale for gradient in gradients]
    maxima = [largest_magnitude(gradient.array) for gradient in gradients]
    if any(map(on_gpu, maxima)):
        return _common_scale_on_gpu(maxima, scales, limit)
    highest = max(scales)
    with numpy.errstate(all='ignore'):
        true = sum(largest / scale for largest, scale in zip(maxima, scales))
    if not numpy.isfinite(true) or true * highest <= limit:
        return highest
    return float(formats.floor_power_of_two(limit / true))


def _at_scale(gradient, scale):
    array = gradient.array
    if array.dtype == numpy.float16:
        array = to_float32(array)
    if _are_same([gradient.scale, scale]):
        return array
    return _as_array(array * (scale / gradient.scale)).astype(array.dtype, copy=False)


def _as_array(value):
    # NumPy turns the result of an operation on 0-d arrays into a scalar.
    return numpy.asarray(value) if isinstance(value, numpy.generic) else value


def _are_same(scales):
    # Comparing device arrays by value would wait for the device; one that was handed on is the
    # same object.
    first = scales[0]
    return all(
        scale is first or (isinstance(scale, float) and isinstance(first, float) and scale == first)
        for scale in scales[1:]
    )


def _rescale_on_gpu(array, scale, target):
    compute = _type_of_sums(array.dtype)
    rescale = cuda.elementwise(
        'T x, float32 scale, float32 target',
        'T y',
        f'y = ({compute})x * ({compute})((double)target / scale)',
        'chainerlp_rescale',
    )
    return rescale(array, scale, target)


def _join_on_gpu(gradients, dtype):
    """:func:`join` in two launches: the true sum's maximum, then the sum at the scale that fits."""
    if gradients[0].array.size == 0:
        return gradients[0]
    while len(gradients) > _ARRAYS_A_LAUNCH:
        # Partial sums are held in float32.
        first = _join_on_gpu(gradients[:_ARRAYS_A_LAUNCH], numpy.promote_types(dtype, 'float32'))
        gradients = [first, *gradients[_ARRAYS_A_LAUNCH:]]
    arrays = [gradient.array for gradient in gradients]
    scales = [gradient.scale for gradient in gradients]
    dtypes = tuple(array.dtype.name for array in arrays)
    find_largest, add = _join_kernels(dtypes, _type_of_sums(dtype))
    total, common = cuda.cupy.empty(arrays[0].shape, dtype), _new_scale()
    largest = find_largest(*arrays, *scales)
    add(*arrays, *scales, largest, formats.get(dtype.name).largest, total, common)
    return ScaledArray(total, common)


def _join_kernels(dtypes, compute):
    count = len(dtypes)
    arrays = ', '.join(f'{dtype} x{k}' for k, dtype in enumerate(dtypes))
    scales = ', '.join(f'float32 s{k}' for k in range(count))
    find_largest = cuda.reduce(
        f'{arrays}, {scales}',
        'float64 largest',
        'fabs(' + ' + '.join(f'({compute})x{k} / (double)s{k}' for k in range(count)) + ')',
        'max(a, b)',
        'largest = a',
        '0',
        'chainerlp_largest_of_sum',
        reduce_type='double',
    )
    add = cuda.elementwise(
        f'{arrays}, {scales}, float64 largest, float64 limit',
        'T total, raw float32 common',
        _choose_common(count)
        + ' if (i == 0) common[0] = chosen; total = '
        + ' + '.join(f'({compute})x{k} * ({compute})(chosen / s{k})' for k in range(count))
        + ';',
        'chainerlp_add_at_common_scale',
        preamble=formats.CUDA_FLOOR_POWER_OF_TWO,
    )
    return find_largest, add


def _common_scale_on_gpu(maxima, scales, limit):
    count = len(maxima)
    arrays = ', '.join(f'float64 x{k}' for k in range(count))
    scales_in = ', '.join(f'float32 s{k}' for k in range(count))
    common = _new_scale()
    cuda.elementwise(
        f'{arrays}, {scales_in}, float64 limit',
        'float32 common',
        'const double largest = '
        + ' + '.join(f'x{k} / (double)s{k}' for k in range(count))
        + f'; {_choose_common(count)} common = chosen;',
        'chainerlp_common_scale',
        preamble=formats.CUDA_FLOOR_POWER_OF_TWO,
    )(*maxima, *scales, limit, common)
    return common


def _choose_common(count):
    """Returns CUDA that chooses a common scale as :func:`_common_scale` does, from ``largest``."""
    return ' '.join(
        ['double highest = s0;']
        + [f'highest = max(highest, (double)s{k});' for k in range(1, count)]
        + [
            'const bool fits = !isfinite((double)largest) || largest * highest <= limit;',
            'const double chosen = fits ? highest : floor_power_of_two(limit / largest);',
        ]
    )


def _type_of_sums(dtype):
    return 'double' if dtype == numpy.float64 else 'float'


def _new_scale():
    return cuda.cupy.empty((), numpy.float32)
