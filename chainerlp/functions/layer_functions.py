"""Which functions of a graph are layers, scaled or Chainer's own, and how the latter are scaled."""

import copy
from collections import Counter
from collections.abc import Iterable
from typing import Callable, Optional

from chainerlp import formats
from chainerlp.functions import convolution, linear
from chainerlp.functions.cast import ScaledCastFunction
from chainerlp.functions.scaled_function import (
    DataGradient,
    ScaledFunction,
    gradient_to_cast,
    next_serial,
)
from chainerlp.gemm import factor
from chainerlp.layer_scale import LayerScale
from chainerlp.scaled_array import ScaledArray
from chainerlp.types import Array

import chainer
import numpy
from chainer.functions.connection.bilinear import BilinearFunction
from chainer.functions.connection.convolution_2d import Convolution2DFunction
from chainer.functions.connection.convolution_nd import ConvolutionND
from chainer.functions.connection.deconvolution_2d import Deconvolution2DFunction
from chainer.functions.connection.deconvolution_nd import DeconvolutionND
from chainer.functions.connection.linear import LinearFunction
from chainer.functions.connection.local_convolution_2d import LocalConvolution2DFunction

_SCALED = {
    LinearFunction: linear.ScaledLinearFunction,
    BilinearFunction: linear.ScaledBilinearFunction,
    Convolution2DFunction: convolution.ScaledConvolution2DFunction,
    ConvolutionND: convolution.ScaledConvolutionNDFunction,
    Deconvolution2DFunction: convolution.ScaledDeconvolution2DFunction,
    DeconvolutionND: convolution.ScaledDeconvolutionNDFunction,
    LocalConvolution2DFunction: convolution.ScaledLocalConvolution2DFunction,
}


def rounds_gradient(function: chainer.FunctionNode) -> bool:
    """Returns whether a function is a layer, scaled or Chainer's own, that rounds a gradient.

    Layers are linear, convolution, deconvolution, local convolution and bilinear (whose x is e1),
    and scaled casts from float16. They round gx, if x wants a gradient; with a ``compute_dtype``
    gy, always.

    Args:
        function (~chainer.FunctionNode): Any function.
    """
    known = isinstance(function, tuple(_SCALED))
    if isinstance(function, ScaledCastFunction):
        known = function.inputs[0].dtype == numpy.float16
    return known and (function.inputs[0].requires_grad or computes_in(function) is not None)


def computes_in(function: chainer.FunctionNode) -> Optional[formats.Format]:
    """Returns the format that a float32 layer has rounded its factors to, or ``None``.

    Args:
        function (~chainer.FunctionNode): Any function, after its forward.
    """
    return getattr(function, 'computes_in', None)


def rounded_to(function: chainer.FunctionNode) -> formats.Format:
    """Returns the format that a layer rounds its gradient to: float16, unless it has another.

    Args:
        function (~chainer.FunctionNode): A function that :func:`rounds_gradient`.
    """
    return computes_in(function) or getattr(function, 'gradient_format', None) or formats.FLOAT16


def gradient_to_round(
    function: chainer.FunctionNode, in_data: tuple[Array, ...], gy: Array
) -> DataGradient:
    """Returns the :class:`~chainerlp.functions.scaled_function.DataGradient` that a layer rounds.

    Args:
        function (~chainer.FunctionNode): A function that :func:`rounds_gradient`, after its
            backward.
        in_data (tuple of :ref:`ndarray`): Its inputs: x, W and, if there is one, b; for a bilinear
            function as there.
        gy (:ref:`ndarray`): The gradient of its output as it is stored.
    """
    gy = factor(gy)
    if computes_in(function) is not None:
        return gradient_to_cast(gy)
    return _as_scaled(function).data_gradient(0, in_data, gy)


def give_compute_dtype(
    function: chainer.FunctionNode,
    in_data: tuple[Array, ...],
    layer_scale_of: Callable[[Array], Optional[LayerScale]],
) -> None:
    """Makes one of Chainer's own functions a scaled one before its forward, if it is a layer.

    Args:
        function (~chainer.FunctionNode): Any function; only one of Chainer's very classes changes
            its class.
        in_data (tuple of :ref:`ndarray`): Its inputs.
        layer_scale_of (callable): Takes the weight's array and returns the
            :class:`~chainerlp.layer_scale.LayerScale` that has the ``compute_dtype``, or ``None``
            to leave the function as it is.
    """
    scaled = _SCALED.get(type(function))
    layer_scale = None if scaled is None else layer_scale_of(in_data[len(scaled.data_inputs)])
    if layer_scale is not None:
        function.__class__ = scaled
        function.layer_scale = layer_scale
        function.serial = next_serial()


def number_calls(outputs: Iterable[chainer.Variable], uses: Counter[int]) -> None:
    """Tells each scaled function which use of its layer it is, in the order of the forward pass.

    Args:
        outputs (list of ~chainer.Variable): The ends of the graph.
        uses (collections.Counter): How often each layer was used in this pass before: what is
            recomputed counts on from there.
    """
    functions = [y.creator_node for y in outputs]
    seen = {None}
    for function in functions:  # grows
        if function not in seen:
            seen.add(function)
            functions.extend(x.creator_node for x in function.inputs)
    scaled = [function for function in seen if isinstance(function, ScaledFunction)]
    for function in sorted(scaled, key=lambda function: function.serial):
        layer = id(function.layer_scale)
        function.call = uses[layer]
        uses[layer] += 1


def is_plain_layer(function: chainer.FunctionNode) -> bool:
    """Returns whether a function is a layer of Chainer's own with a float16 product in backward.

    Such are ``F.linear`` and its like, called with a parameter or with what is made of one.
    ``F.bilinear`` does not take float16.

    Args:
        function (~chainer.FunctionNode): Any function.
    """
    return (
        isinstance(function, tuple(_SCALED))
        and not isinstance(function, (ScaledFunction, BilinearFunction))
        and function.inputs[0].dtype == function.inputs[1].dtype == numpy.float16
        and not getattr(function, 'cudnn_fast', False)
    )


def backward_plain_layer(
    function: chainer.FunctionNode,
    indexes: tuple[int, ...],
    gy: ScaledArray,
    layer_scale: LayerScale,
    backoff: float,
) -> list[Optional[ScaledArray]]:
    """Runs one of Chainer's own layers backward as :class:`ScaledFunction` does.

    Args:
        function (~chainer.FunctionNode): A function that :func:`is_plain_layer`.
        indexes (tuple of int): The inputs whose gradients are wanted.
        gy (~chainerlp.scaled_array.ScaledArray): The gradient of its output.
        layer_scale (~chainerlp.layer_scale.LayerScale): What chooses α.
        backoff (float): See :meth:`chainerlp.policies.Policy.scale`.

    Returns:
        list of ~chainerlp.scaled_array.ScaledArray: A gradient for each index.
    """
    layer = _as_scaled(function)
    layer.layer_scale = layer_scale
    gradients = layer.backward_scaled(indexes, gy, backoff)
    function.scale, function.total_scale = layer.scale, layer.total_scale
    function.gradient_format = layer.gradient_format  # for who measures
    return gradients


def _as_scaled(function):
    """Returns a layer as a scaled function: itself, or a copy of one of Chainer's own."""
    if isinstance(function, ScaledFunction):
        return function
    layer = copy.copy(function)
    layer.__class__ = next(_SCALED[kind] for kind in _SCALED if isinstance(function, kind))
    return layer
