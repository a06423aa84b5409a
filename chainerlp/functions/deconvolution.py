"""2-D and N-D deconvolution whose data gradient is scaled.

Beside ``chainer.functions.deconvolution_2d`` and ``deconvolution_nd``. The output of one is a
convolution's data gradient, and its data gradient a convolution's output: an element of gx sums
over the output channels of a group and the whole kernel.
"""

from chainerlp import geometry
from chainerlp.functions.scaled_function import ScaledLayerFunction

from chainer.functions.connection.deconvolution_2d import Deconvolution2DFunction
from chainer.functions.connection.deconvolution_nd import DeconvolutionND


class ScaledDeconvolution2DFunction(ScaledLayerFunction, Deconvolution2DFunction):
    """:class:`ScaledLayerFunction` of a 2-D deconvolution."""

    @staticmethod
    def geometry(function):
        """Returns the :class:`~chainerlp.geometry.Deconvolution` of one of Chainer's functions."""
        transpose = geometry.Convolution(
            (function.sy, function.sx),
            (function.ph, function.pw),
            (function.dy, function.dx),
            function.groups,
            function.cover_all,
        )
        return geometry.Deconvolution(transpose, (function.outh, function.outw))

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


class ScaledDeconvolutionNDFunction(ScaledLayerFunction, DeconvolutionND):
    """:class:`ScaledLayerFunction` of an N-D deconvolution."""

    cover_all = False

    @staticmethod
    def geometry(function):
        """Returns the :class:`~chainerlp.geometry.Deconvolution` of one of Chainer's functions."""
        transpose = geometry.Convolution(
            function.stride, function.pad, function.dilate, function.groups, function.cover_all
        )
        return geometry.Deconvolution(transpose, function.outs)

    def prepare(self, x, W):
        """Finds the spatial size of y."""
        if self.outs is None:
            transpose = self.geometry(self).transpose
            self.outs = transpose.smallest_input(x.shape[2:], W.shape[2:])
            assert min(self.outs) > 0, 'Output sizes should be positive.'  # Chainer's error
        self.outs = tuple(self.outs)
        self._set_cover_all(x, W)


def scaled_deconvolution_nd(
    x, W, b=None, stride=1, pad=0, outsize=None, dilate=1, groups=1, layer_scale=None
):
    """N-D deconvolution whose data gradient is scaled.

    Args:
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Input of shape (n, in, d_1, ..., d_N).
        W (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape
            (in, out / groups, k_1, ..., k_N).
        b (:class:`~chainer.Variable` or :ref:`ndarray`): Bias of shape (out,), or ``None``.
        stride (int or tuple of ints): Stride.
        pad (int or tuple of ints): Padding width.
        outsize (tuple of ints): Spatial size of the output; the smallest that fits, by default.
        dilate (int or tuple of ints): Dilation factor.
        groups (int): Number of groups of channels.
        layer_scale (LayerScale): What chooses the scale; ``None`` scales nothing.

    Returns:
        ~chainer.Variable: Output of shape (n, out, l_1, ..., l_N).
    """
    function = ScaledDeconvolutionNDFunction(
        x.ndim - 2, stride, pad, outsize, dilate, groups, layer_scale=layer_scale
    )
    inputs = (x, W) if b is None else (x, W, b)
    (y,) = function.apply(inputs)
    return y
