"""2-D convolution whose data gradient is scaled; beside ``chainer.functions.convolution_2d``."""

from chainerlp import products
from chainerlp.functions.scaled_function import ScaledLayerFunction

from chainer.functions.connection.convolution_2d import Convolution2DFunction


class ScaledConvolution2DFunction(ScaledLayerFunction, Convolution2DFunction):
    """:class:`ScaledLayerFunction` of a 2-D convolution."""

    @staticmethod
    def geometry(function):
        """Returns the :class:`~chainerlp.products.Convolution` of one of Chainer's functions."""
        return products.Convolution(
            (function.sy, function.sx),
            (function.ph, function.pw),
            (function.dy, function.dx),
            function.groups,
            function.cover_all,
        )

    def _is_plain(self):
        # Channels-last layouts exist for cuDNN only, which keeps them to itself.
        return not self.cudnn_fast


def scaled_convolution_2d(
    x,
    W,
    b=None,
    stride=1,
    pad=0,
    cover_all=False,
    *,
    dilate=1,
    groups=1,
    cudnn_fast=False,
    layer_scale=None,
):
    """2-D convolution whose data gradient is scaled.

    Args:
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Input of shape (n, in, h, w).
        W (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape
            (out, in / groups, kh, kw).
        b (:class:`~chainer.Variable` or :ref:`ndarray`): Bias of shape (out,), or ``None``.
        stride (int or pair of ints): Stride.
        pad (int or pair of ints): Padding width.
        cover_all (bool): Whether every element of x is convolved into some element of y.
        dilate (int or pair of ints): Dilation factor.
        groups (int): Number of groups of channels.
        cudnn_fast (bool): As in Chainer: channels-last layouts by cuDNN; scaled by nothing.
        layer_scale (LayerScale): What chooses the scale; ``None`` scales nothing.

    Returns:
        ~chainer.Variable: Output of shape (n, out, oh, ow).
    """
    function = ScaledConvolution2DFunction(
        stride,
        pad,
        cover_all,
        dilate=dilate,
        groups=groups,
        cudnn_fast=cudnn_fast,
        layer_scale=layer_scale,
    )
    inputs = (x, W) if b is None else (x, W, b)
    (y,) = function.apply(inputs)
    return y
