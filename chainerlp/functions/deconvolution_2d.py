"""2-D deconvolution whose data gradient is scaled; beside ``chainer.functions.deconvolution_2d``.

Its output is a convolution's data gradient, and its data gradient a convolution's output: an
element of gx sums over the output channels of a group and the whole kernel.
"""

from chainerlp import products
from chainerlp.functions.scaled_function import ScaledLayerFunction

from chainer.functions.connection.deconvolution_2d import Deconvolution2DFunction


class ScaledDeconvolution2DFunction(ScaledLayerFunction, Deconvolution2DFunction):
    """:class:`ScaledLayerFunction` of a 2-D deconvolution."""

    @staticmethod
    def geometry(function):
        """Returns the :class:`~chainerlp.products.Deconvolution` of one of Chainer's functions."""
        transpose = products.Convolution(
            (function.sy, function.sx),
            (function.ph, function.pw),
            (function.dy, function.dx),
            function.groups,
            function.cover_all,
        )
        return products.Deconvolution(transpose, (function.outh, function.outw))

    def prepare(self, x, W):
        """Finds the spatial size of y."""
        self._calc_out_size(x.shape, W.shape)
        self._set_cover_all(x.shape, W.shape)


def scaled_deconvolution_2d(
    x, W, b=None, stride=1, pad=0, outsize=None, *, dilate=1, groups=1, layer_scale=None
):
    """2-D deconvolution whose data gradient is scaled.

    Args:
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Input of shape (n, in, h, w).
        W (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape
            (in, out / groups, kh, kw).
        b (:class:`~chainer.Variable` or :ref:`ndarray`): Bias of shape (out,), or ``None``.
        stride (int or pair of ints): Stride.
        pad (int or pair of ints): Padding width.
        outsize (pair of ints): Height and width of the output; the smallest that fit, by default.
        dilate (int or pair of ints): Dilation factor.
        groups (int): Number of groups of channels.
        layer_scale (LayerScale): What chooses the scale; ``None`` scales nothing.

    Returns:
        ~chainer.Variable: Output of shape (n, out, oh, ow).
    """
    function = ScaledDeconvolution2DFunction(
        stride, pad, outsize, dilate=dilate, groups=groups, layer_scale=layer_scale
    )
    inputs = (x, W) if b is None else (x, W, b)
    (y,) = function.apply(inputs)
    return y
