"""The float32 product behind the data gradient of a layer, scaled or Chainer's own."""

from chainerlp import gemm
from chainerlp.functions.bilinear import bilinear_data_gradient
from chainerlp.functions.convolution import (
    ScaledConvolution2DFunction,
    ScaledConvolutionNDFunction,
    ScaledLocalConvolution2DFunction,
)
from chainerlp.functions.deconvolution import (
    ScaledDeconvolution2DFunction,
    ScaledDeconvolutionNDFunction,
)
from chainerlp.functions.linear import ScaledLinearFunction

from chainer.functions.connection.bilinear import BilinearFunction
from chainer.functions.connection.convolution_2d import Convolution2DFunction
from chainer.functions.connection.convolution_nd import ConvolutionND
from chainer.functions.connection.deconvolution_2d import Deconvolution2DFunction
from chainer.functions.connection.deconvolution_nd import DeconvolutionND
from chainer.functions.connection.linear import LinearFunction
from chainer.functions.connection.local_convolution_2d import LocalConvolution2DFunction

_GEOMETRIES = {
    LinearFunction: ScaledLinearFunction.geometry,
    Convolution2DFunction: ScaledConvolution2DFunction.geometry,
    ConvolutionND: ScaledConvolutionNDFunction.geometry,
    Deconvolution2DFunction: ScaledDeconvolution2DFunction.geometry,
    DeconvolutionND: ScaledDeconvolutionNDFunction.geometry,
    LocalConvolution2DFunction: ScaledLocalConvolution2DFunction.geometry,
}


def has_data_gradient(function):
    """Returns whether a function is one that is scaled, or Chainer's own, and x wants a gradient.

    That is linear, convolution, deconvolution, local convolution and bilinear (whose x is e1).

    Args:
        function (~chainer.FunctionNode): Any function.
    """
    known = isinstance(function, (*_GEOMETRIES, BilinearFunction))
    return known and function.inputs[0].requires_grad


def float32_data_gradient(function, in_data, gy):
    """Returns gx of a function that :func:`has_data_gradient`, before it is scaled and rounded.

    Args:
        function (~chainer.FunctionNode): The function, after its backward.
        in_data (tuple of :ref:`ndarray`): Its inputs: x, W and, if there is one, b; for a bilinear
            function as there.
        gy (:ref:`ndarray`): The gradient of its output as it is stored.

    Returns:
        :ref:`ndarray`: A float32 array of the shape of x.
    """
    gy = gemm.factor(gy)
    if isinstance(function, BilinearFunction):
        return bilinear_data_gradient(in_data, gy).product()
    x, W = in_data[:2]
    geometry = next(g for kind, g in _GEOMETRIES.items() if isinstance(function, kind))
    return geometry(function).data_gradient(gy, gemm.factor(W), x.shape[2:])
