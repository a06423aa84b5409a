"""2-D convolution with a kernel of its own at each position, whose data gradient is scaled.

Beside ``chainer.functions.local_convolution_2d``.
"""

from chainerlp import products
from chainerlp.functions.scaled_function import ScaledLayerFunction

from chainer.functions.connection.local_convolution_2d import LocalConvolution2DFunction


class ScaledLocalConvolution2DFunction(ScaledLayerFunction, LocalConvolution2DFunction):
    """:class:`ScaledLayerFunction` of a local convolution."""

    @staticmethod
    def geometry(function):
        """Returns the :class:`~chainerlp.products.LocalConvolution2D` of Chainer's function."""
        return products.LocalConvolution2D((function.sy, function.sx))


def scaled_local_convolution_2d(x, W, b=None, stride=1, layer_scale=None):
    """Local convolution whose data gradient is scaled.

    Args:
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Input of shape (n, in, h, w).
        W (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape
            (out, oh, ow, in, kh, kw).
        b (:class:`~chainer.Variable` or :ref:`ndarray`): Bias of shape (out, oh, ow), or ``None``.
        stride (int or pair of ints): Stride.
        layer_scale (LayerScale): What chooses the scale; ``None`` scales nothing.

    Returns:
        ~chainer.Variable: Output of shape (n, out, oh, ow).
    """
    inputs = (x, W) if b is None else (x, W, b)
    (y,) = ScaledLocalConvolution2DFunction(stride, layer_scale=layer_scale).apply(inputs)
    return y
