"""2-D convolution whose data gradient is scaled; beside ``chainer.functions.convolution_2d``."""

from chainerlp import products
from chainerlp.functions.scaled_function import ScaledFunction

from chainer.functions.connection.convolution_2d import Convolution2DFunction


def geometry(function):
    """Returns the :class:`~chainerlp.products.Convolution2D` of one of Chainer's functions."""
    return products.Convolution2D(
        (function.sy, function.sx),
        (function.ph, function.pw),
        (function.dy, function.dx),
        function.groups,
    )


class ScaledConvolution2DFunction(ScaledFunction, Convolution2DFunction):
    """:class:`ScaledFunction` of a 2-D convolution."""

    bias_shape = (1, -1, 1, 1)

    def output(self, x, W):
        """Returns y without the bias."""
        return geometry(self).output(x, W)

    def data_gradient(self, gy, W, x_shape):
        """Returns gx."""
        return geometry(self).data_gradient(gy, W, x_shape[2:])

    def weight_gradient(self, x, gy, W_shape):
        """Returns gW."""
        return geometry(self).weight_gradient(x, gy, W_shape)

    def terms(self, W_shape):
        """Returns K: the output channels of a group, times kh kw."""
        return geometry(self).terms(W_shape)

    def _is_plain(self):
        # Channels-last layouts exist for cuDNN only, which keeps them to itself.
        return not self.cudnn_fast and not self.cover_all


def scaled_convolution_2d(
    x, W, b=None, stride=1, pad=0, *, dilate=1, groups=1, cudnn_fast=False, layer_scale=None
):
    """2-D convolution whose data gradient is scaled.

    Args:
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Input of shape (n, in, h, w).
        W (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape
            (out, in / groups, kh, kw).
        b (:class:`~chainer.Variable` or :ref:`ndarray`): Bias of shape (out,), or ``None``.
        stride (int or pair of ints): Stride.
        pad (int or pair of ints): Padding width.
        dilate (int or pair of ints): Dilation factor.
        groups (int): Number of groups of channels.
        cudnn_fast (bool): As in Chainer: channels-last layouts by cuDNN; scaled by nothing.
        layer_scale (LayerScale): What chooses the scale; ``None`` scales nothing.

    Returns:
        ~chainer.Variable: Output of shape (n, out, oh, ow).
    """
    function = ScaledConvolution2DFunction(
        stride, pad, dilate=dilate, groups=groups, cudnn_fast=cudnn_fast, layer_scale=layer_scale
    )
    inputs = (x, W) if b is None else (x, W, b)
    (y,) = function.apply(inputs)
    return y
