"""A cast to a wider format, whose gradient is scaled before it is rounded back.

Beside ``chainer.functions.cast``.
"""

from typing import Optional

from chainerlp.functions.scaled_function import DataGradient, ScaledFunction, gradient_to_cast
from chainerlp.layer_scale import LayerScale
from chainerlp.types import Array, Input

import chainer
import numpy
from chainer.functions.array.cast import Cast
from numpy.typing import DTypeLike


class ScaledCastFunction(ScaledFunction, Cast):
    """:class:`ScaledFunction` of a cast: its one product is gy · 1, of float32 and of one term."""

    n_retained = 0

    def forward(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Casts."""
        return Cast.forward(self, inputs)

    def data_gradient(self, index: int, inputs: tuple[Array, ...], gy: Array) -> DataGradient:
        """Returns the :class:`~chainerlp.functions.scaled_function.DataGradient` of x."""
        return gradient_to_cast(gy)


def scaled_cast(
    x: Input, dtype: DTypeLike, layer_scale: Optional[LayerScale] = None
) -> chainer.Variable:
    """Cast whose gradient is scaled before it is rounded to a float16 ``x``.

    Where logits are cast to float32 for the loss, it is there that most of a gradient can be lost:
    of a mean over millions of pixels nearly all. No layer's scale brings that back. IJCAI 2020/404
    scales each such cast (``ada_loss_cast`` of its code).

    Args:
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Input.
        dtype: What to cast to, such as ``'float32'``.
        layer_scale (LayerScale): What chooses the scale, by a policy; ``None`` scales nothing.

    Returns:
        ~chainer.Variable: ``x`` in ``dtype``.
    """
    x = chainer.as_variable(x)
    if x.dtype == numpy.dtype(dtype):
        return x
    return ScaledCastFunction(numpy.dtype(dtype), layer_scale=layer_scale).apply((x,))[0]
