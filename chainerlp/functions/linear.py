"""Linear and bilinear functions whose data gradients are scaled.

Beside ``chainer.functions.linear`` and ``bilinear``.
"""

import math
from typing import Optional

from chainerlp import geometry
from chainerlp.functions.scaled_function import DataGradient, ScaledFunction, ScaledLayerFunction
from chainerlp.layer_scale import LayerScale
from chainerlp.rounding import from_float32, scale_and_round, to_float32
from chainerlp.types import Array, Input, Scale

import chainer
import numpy
from chainer import backend, utils
from chainer.functions.connection.bilinear import BilinearFunction
from chainer.functions.connection.linear import LinearFunction
from chainer.utils import type_check
from numpy.typing import DTypeLike


class ScaledLinearFunction(ScaledLayerFunction, LinearFunction):
    """:class:`ScaledLayerFunction` of y = x Wᵀ + b."""

    def geometry(self) -> geometry.Linear:
        """Returns a :class:`~chainerlp.geometry.Linear`."""
        return geometry.Linear()


def scaled_linear(
    x: Input,
    W: Input,
    b: Optional[Input] = None,
    n_batch_axes: int = 1,
    layer_scale: Optional[LayerScale] = None,
    rounded_weights: Optional[dict[int, Array]] = None,
) -> chainer.Variable:
    """Linear function whose data gradient is scaled.

    Args:
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Input of shape (s_1, ..., s_n). Its first
            ``n_batch_axes`` axes are the batch's, the others are taken as one.
        W (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape (out, in).
        b (:class:`~chainer.Variable` or :ref:`ndarray`): Bias of shape (out,), or ``None``.
        n_batch_axes (int): Number of batch axes, 1 or more.
        layer_scale (LayerScale): What chooses the scale; ``None`` scales nothing.
        rounded_weights (dict): See
            :class:`~chainerlp.functions.scaled_function.ScaledFunction`.

    Returns:
        ~chainer.Variable: Output of shape (s_1, ..., s_n_batch_axes, out).

    Raises:
        ValueError: If ``n_batch_axes`` is not positive.
    """
    if n_batch_axes < 1:
        raise ValueError(f'n_batch_axes must be 1 or more, not {n_batch_axes}')
    batch_shape = x.shape[:n_batch_axes]
    if x.ndim != 2 or n_batch_axes != 1:
        x = x.reshape(utils.size_of_shape(batch_shape), utils.size_of_shape(x.shape[n_batch_axes:]))
    function = ScaledLinearFunction(layer_scale=layer_scale, rounded_weights=rounded_weights)
    y = function.apply_to(x, W, b)
    return y if n_batch_axes == 1 else y.reshape(batch_shape + (-1,))


class ScaledBilinearFunction(ScaledFunction, BilinearFunction):
    """:class:`ScaledFunction` of y = (e1 ⊗ e2) W + e1 V1 + e2 V2 + b.

    V1, V2 and b are given all or none. The gradients of e1 and e2 are each multiplied by an α of
    their own. Unlike Chainer's function it takes float16.
    """

    data_inputs = (0, 1)
    n_retained = 6
    n_factors = 5

    def check_type_forward(self, in_types: type_check.TypeInfoTuple) -> None:
        """Checks the inputs as Chainer's function does, which knows float32 only."""
        if type_check.eval(in_types[0].dtype) != numpy.float16:
            super().check_type_forward(in_types)
            return
        e1, e2, W = in_types[:3]
        product = type_check.make_variable(numpy.prod, 'prod')
        type_check.expect(
            e2.dtype == e1.dtype,
            e1.ndim >= 2,
            e2.ndim >= 2,
            W.ndim == 3,
            e1.shape[0] == e2.shape[0],
            product(e1.shape[1:]) == W.shape[0],
            product(e2.shape[1:]) == W.shape[1],
        )
        if type_check.eval(in_types.size()) == 6:
            V1, V2, b = in_types[3:]
            type_check.expect(V1.ndim == 2, V2.ndim == 2, b.ndim == 1)
            for i, V in enumerate((V1, V2)):
                type_check.expect(V.shape[0] == W.shape[i], V.shape[1] == W.shape[2])
            type_check.expect(b.shape[0] == W.shape[2])

    def output(self, inputs: tuple[Array, ...], dtype: DTypeLike) -> Array:
        """Returns y, made in float32 and rounded once."""
        e1, e2 = _matrix(inputs[0]), _matrix(inputs[1])
        W, *rest = (to_float32(a) for a in inputs[2:])
        y = _rows(e1, e2).dot(W.reshape(W.shape[0] * W.shape[1], W.shape[2]))
        if rest:
            V1, V2, b = rest
            y += e1.dot(V1)
            y += e2.dot(V2)
            y += b
        return from_float32(y, dtype)

    def data_gradient(self, index: int, inputs: tuple[Array, ...], gy: Array) -> DataGradient:
        """Returns the :class:`DataGradient` of e1 or of e2.

        The gradient of e1 is a linear layer's: the product of (e2 ⊗ gy | gy) and the transpose of
        (W | V1), each as a matrix; that of e2 likewise. It is these factors that a policy is shown.
        """
        xp = backend.get_array_module(gy)
        gy = to_float32(gy)
        W = to_float32(inputs[2]).swapaxes(0, index)
        rows = [_rows(_matrix(inputs[1 - index]), gy)]
        weights = [W.reshape(len(W), W.shape[1] * W.shape[2])]
        if len(inputs) == 6:
            rows.append(gy)
            weights.append(to_float32(inputs[3 + index]))
        rows, weights = xp.concatenate(rows, axis=1), xp.concatenate(weights, axis=1)

        def product(scale=1.0, dtype=numpy.float32):
            return scale_and_round(rows.dot(weights.T).reshape(inputs[index].shape), scale, dtype)

        return DataGradient(rows, weights.T, weights.shape[1], product)

    def parameter_gradient(
        self,
        index: int,
        inputs: tuple[Array, ...],
        gy: Array,
        scale: Scale = 1.0,
        dtype: DTypeLike = numpy.float32,
    ) -> Array:
        """Returns gW, gV1, gV2 or gb."""
        gy = to_float32(gy)
        if index == 5:
            gradient = gy.sum(axis=0)
        elif index == 2:
            e1, e2 = _matrix(inputs[0]), _matrix(inputs[1])
            gradient = e1.T.dot(_rows(e2, gy)).reshape(inputs[2].shape)
        else:
            gradient = _matrix(inputs[index - 3]).T.dot(gy)
        return scale_and_round(gradient, scale, dtype)


def _matrix(array):
    return to_float32(array).reshape(len(array), math.prod(array.shape[1:]))


def _rows(a, b):
    """Returns the outer product of each row of a with the same row of b, as a row."""
    return (a[:, :, None] * b[:, None, :]).reshape(len(a), a.shape[1] * b.shape[1])


def scaled_bilinear(
    e1: Input,
    e2: Input,
    W: Input,
    V1: Optional[Input] = None,
    V2: Optional[Input] = None,
    b: Optional[Input] = None,
    layer_scale: Optional[LayerScale] = None,
) -> chainer.Variable:
    """Bilinear function whose data gradients are scaled.

    Args:
        e1 (:class:`~chainer.Variable` or :ref:`ndarray`): Left input, a batch of vectors.
        e2 (:class:`~chainer.Variable` or :ref:`ndarray`): Right input.
        W (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape (left, right, out).
        V1 (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape (left, out), or ``None``.
        V2 (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape (right, out), or
            ``None``.
        b (:class:`~chainer.Variable` or :ref:`ndarray`): Bias of shape (out,), or ``None``.
        layer_scale (LayerScale): What chooses the scales; ``None`` scales nothing.

    Returns:
        ~chainer.Variable: Output of shape (batch, out).

    Raises:
        ValueError: If some of V1, V2 and b are given and others are not.
    """
    linear = (V1, V2, b)
    given = [name for name, value in zip(('V1', 'V2', 'b'), linear) if value is not None]
    if len(given) not in (0, 3):
        raise ValueError(f'V1, V2 and b are given all or none, not {" and ".join(given)} alone')
    inputs = (e1, e2, W) + (linear if given else ())
    (y,) = ScaledBilinearFunction(layer_scale=layer_scale).apply(inputs)
    return y
