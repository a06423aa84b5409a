"""Bringing gradients that carry different total scales to one.

Where paths meet (a residual sum, a picked feature map, a weight used twice) the arrays arrive with
total scales of their own. They are brought to the largest of these at which the sum of their maxima
stays in the format, or to the largest power of two at which it does, and are added in float32.
Design, section 1.
"""

from chainerlp import kernels, rounding

import numpy


def join(arrays, scales):
    """Adds gradients of one array.

    Args:
        arrays (list of :ref:`ndarray`): Arrays of one shape and dtype; each holds its scale times
            a gradient.
        scales (list): Their total scales: floats, or 0-d arrays on the device.

    Returns:
        tuple: The sum, in the arrays' dtype, and the total scale that it carries. Arrays of float32
        or float64 that carry the same scale are just added, from left to right, as Chainer does.
    """
    if len(arrays) == 1:
        return arrays[0], scales[0]
    dtype = arrays[0].dtype
    is_half = dtype == numpy.float16
    with numpy.errstate(over='ignore', invalid='ignore'):  # a sum that is not finite says so itself
        if _are_same(scales) and not is_half:
            return _array(sum(arrays[1:], arrays[0])), scales[0]
        common = kernels.common_scale(arrays, scales)
        if kernels.takes(arrays):
            return kernels.joined_on_device(arrays, scales, common), common
        total = sum(_widened(array, scale, common) for array, scale in zip(arrays, scales))
        return rounding.from_float32(_array(total), dtype), common


def align(arrays, scales):
    """Brings arrays to one total scale without adding them, where a function takes several.

    Args:
        arrays (list of :ref:`ndarray`): Arrays of any shapes, each its scale times a gradient.
        scales (list): Their total scales.

    Returns:
        tuple: The list of arrays, and the total scale that all of them carry. It is chosen as for
        :func:`join`, since the function may add them.
    """
    if _are_same(scales):
        return arrays, scales[0]
    common = kernels.common_scale(arrays, scales)
    return [rescale(array, scale, common) for array, scale in zip(arrays, scales)], common


def rescale(array, scale, target):
    """Returns what an array that carries ``scale`` is when it carries ``target``, in its dtype."""
    if _are_same([scale, target]):
        return array
    if kernels.takes([array]):
        return kernels.scaled_on_device(array, target / scale, array.dtype)
    with numpy.errstate(over='ignore'):
        return rounding.from_float32(_widened(array, scale, target), array.dtype)


def _widened(array, scale, target):
    if array.dtype == numpy.float16:
        array = rounding.to_float32(array)
    if _are_same([scale, target]):
        return array
    return _array(array * (target / scale)).astype(array.dtype, copy=False)


def _array(value):
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
