"""N-D convolution whose data gradient is scaled; beside ``chainer.functions.convolution_nd``."""

from chainerlp import products
from chainerlp.functions.scaled_function import ScaledLayerFunction

from chainer.functions.connection.convolution_nd import ConvolutionND


class ScaledConvolutionNDFunction(ScaledLayerFunction, ConvolutionND):
    """:class:`ScaledLayerFunction` of an N-D convolution."""

    @staticmethod
    def geometry(function):
        """Returns the :class:`~chainerlp.products.Convolution` of one of Chainer's functions."""
        return products.Convolution(
            function.stride, function.pad, function.dilate, function.groups, function.cover_all
        )

    def prepare(self, x, W):
        """Checks what Chainer leaves to the product to find out."""
        if x.shape[1] != W.shape[1] * self.groups or W.shape[0] % self.groups != 0:
            raise ValueError(
                f'W {W.shape} with groups={self.groups} is for {W.shape[1] * self.groups} input'
                f' channels and a multiple of {self.groups} outputs; x {x.shape} has {x.shape[1]}'
            )


def scaled_convolution_nd(
    x, W, b=None, stride=1, pad=0, cover_all=False, dilate=1, groups=1, layer_scale=None
):
    """N-D convolution whose data gradient is scaled.

    Args:
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Input of shape (n, in, d_1, ..., d_N).
        W (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape
            (out, in / groups, k_1, ..., k_N).
        b (:class:`~chainer.Variable` or :ref:`ndarray`): Bias of shape (out,), or ``None``.
        stride (int or tuple of ints): Stride.
        pad (int or tuple of ints): Padding width.
        cover_all (bool): Whether every element of x is convolved into some element of y.
        dilate (int or tuple of ints): Dilation factor.
        groups (int): Number of groups of channels.
        layer_scale (LayerScale): What chooses the scale; ``None`` scales nothing.

    Returns:
        ~chainer.Variable: Output of shape (n, out, l_1, ..., l_N).
    """
    function = ScaledConvolutionNDFunction(
        x.ndim - 2, stride, pad, cover_all, dilate, groups, layer_scale=layer_scale
    )
    inputs = (x, W) if b is None else (x, W, b)
    (y,) = function.apply(inputs)
    return y
