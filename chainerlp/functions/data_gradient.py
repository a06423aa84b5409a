"""The float32 product behind the data gradient of a layer, scaled or Chainer's own."""

from chainerlp import products, rounding
from chainerlp.functions.convolution_2d import geometry

from chainer.functions.connection.convolution_2d import Convolution2DFunction
from chainer.functions.connection.linear import LinearFunction


def has_data_gradient(function):
    """Returns whether a function is linear or a convolution, and its input wants a gradient."""
    known = isinstance(function, (LinearFunction, Convolution2DFunction))
    return known and function.inputs[0].requires_grad


def data_gradient(function, in_data, gy):
    """Returns gx of a function that :func:`has_data_gradient`, before it is scaled and rounded.

    Args:
        function (~chainer.FunctionNode): The function.
        in_data (tuple of :ref:`ndarray`): Its inputs x, W and, if there is one, b.
        gy (:ref:`ndarray`): The gradient of its output as it is stored.

    Returns:
        :ref:`ndarray`: A float32 array of the shape of x.
    """
    x, W = in_data[:2]
    gy, W = rounding.to_float32(gy), rounding.to_float32(W)
    if isinstance(function, LinearFunction):
        return products.linear_data_gradient(gy, W)
    return geometry(function).data_gradient(gy, W, x.shape[2:])
