"""Convolutions and deconvolutions whose data gradient is scaled.

Beside ``chainer.functions`` of the same names. The output of a deconvolution is a convolution's
data gradient, and its data gradient a convolution's output: an element of gx sums over the output
channels of a group and the whole kernel.
"""

from collections.abc import Sequence
from typing import Optional

from chainerlp import geometry
from chainerlp.functions.linear import scaled_linear
from chainerlp.functions.scaled_function import ScaledLayerFunction
from chainerlp.layer_scale import LayerScale
from chainerlp.types import Array, Input, Ints

import chainer
import chainer.functions as F
import numpy
from chainer.functions.connection.convolution_2d import Convolution2DFunction
from chainer.functions.connection.convolution_nd import ConvolutionND
from chainer.functions.connection.deconvolution_2d import Deconvolution2DFunction
from chainer.functions.connection.deconvolution_nd import DeconvolutionND
from chainer.functions.connection.local_convolution_2d import LocalConvolution2DFunction
from chainer.utils import conv_nd


def _convolution_2d(function):
    return geometry.Convolution(
        (function.sy, function.sx),
        (function.ph, function.pw),
        (function.dy, function.dx),
        function.groups,
        function.cover_all,
    )


def _convolution_nd(function):
    return geometry.Convolution(
        function.stride, function.pad, function.dilate, function.groups, function.cover_all
    )


class ScaledConvolution2DFunction(ScaledLayerFunction, Convolution2DFunction):
    """:class:`ScaledLayerFunction` of a 2-D convolution."""

    def geometry(self) -> geometry.Convolution:
        """Returns a :class:`~chainerlp.geometry.Convolution`."""
        return _convolution_2d(self)

    def _is_plain(self):
        # Channels-last layouts exist for cuDNN only, which keeps them to itself.
        return not self.cudnn_fast


def scaled_convolution_2d(
    x: Input,
    W: Input,
    b: Optional[Input] = None,
    stride: Ints = 1,
    pad: Ints = 0,
    cover_all: bool = False,
    *,
    dilate: Ints = 1,
    groups: int = 1,
    cudnn_fast: bool = False,
    layer_scale: Optional[LayerScale] = None,
) -> chainer.Variable:
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
    return function.apply_to(x, W, b)


class ScaledConvolutionNDFunction(ScaledLayerFunction, ConvolutionND):
    """:class:`ScaledLayerFunction` of an N-D convolution."""

    def geometry(self) -> geometry.Convolution:
        """Returns a :class:`~chainerlp.geometry.Convolution`."""
        return _convolution_nd(self)

    def prepare(self, x: Array, W: Array) -> None:
        """Checks what Chainer leaves to the product to find out."""
        if x.shape[1] != W.shape[1] * self.groups or W.shape[0] % self.groups != 0:
            raise ValueError(
                f'W {W.shape} with groups={self.groups} is for {W.shape[1] * self.groups} input'
                f' channels and a multiple of {self.groups} outputs; x {x.shape} has {x.shape[1]}'
            )


def scaled_convolution_nd(
    x: Input,
    W: Input,
    b: Optional[Input] = None,
    stride: Ints = 1,
    pad: Ints = 0,
    cover_all: bool = False,
    dilate: Ints = 1,
    groups: int = 1,
    layer_scale: Optional[LayerScale] = None,
) -> chainer.Variable:
    """N-D convolution whose data gradient is scaled.

    The arguments are those of :func:`scaled_convolution_2d`, with N spatial axes: x of shape (n,
    in, d_1, ..., d_N), W of shape (out, in / groups, k_1, ..., k_N), and a number or a tuple of N
    for each pair. Returns y of shape (n, out, l_1, ..., l_N).
    """
    function = ScaledConvolutionNDFunction(
        x.ndim - 2, stride, pad, cover_all, dilate, groups, layer_scale=layer_scale
    )
    return function.apply_to(x, W, b)


class ScaledDeconvolution2DFunction(ScaledLayerFunction, Deconvolution2DFunction):
    """:class:`ScaledLayerFunction` of a 2-D deconvolution."""

    def geometry(self) -> geometry.Deconvolution:
        """Returns a :class:`~chainerlp.geometry.Deconvolution`."""
        return geometry.Deconvolution(_convolution_2d(self), (self.outh, self.outw))

    def prepare(self, x: Array, W: Array) -> None:
        """Finds the spatial size of y."""
        self._calc_out_size(x.shape, W.shape)
        self._set_cover_all(x.shape, W.shape)


def scaled_deconvolution_2d(
    x: Input,
    W: Input,
    b: Optional[Input] = None,
    stride: Ints = 1,
    pad: Ints = 0,
    outsize: Optional[Sequence[int]] = None,
    *,
    dilate: Ints = 1,
    groups: int = 1,
    layer_scale: Optional[LayerScale] = None,
) -> chainer.Variable:
    """2-D deconvolution whose data gradient is scaled.

    The arguments are those of :func:`scaled_convolution_2d`, except W of shape (in, out / groups,
    kh, kw), and ``outsize`` (pair of ints), (oh, ow): the smallest that fit, by default. Returns y
    of shape (n, out, oh, ow).
    """
    function = ScaledDeconvolution2DFunction(
        stride, pad, outsize, dilate=dilate, groups=groups, layer_scale=layer_scale
    )
    return function.apply_to(x, W, b)


class ScaledDeconvolutionNDFunction(ScaledLayerFunction, DeconvolutionND):
    """:class:`ScaledLayerFunction` of an N-D deconvolution."""

    cover_all = False

    def geometry(self) -> geometry.Deconvolution:
        """Returns a :class:`~chainerlp.geometry.Deconvolution`."""
        return geometry.Deconvolution(_convolution_nd(self), self.outs)

    def prepare(self, x: Array, W: Array) -> None:
        """Finds the spatial size of y."""
        if self.outs is None:
            self.outs = _convolution_nd(self).smallest_input(x.shape[2:], W.shape[2:])
            assert min(self.outs) > 0, 'Output sizes should be positive.'  # Chainer's error
        self.outs = tuple(self.outs)
        self._set_cover_all(x, W)


def scaled_deconvolution_nd(
    x: Input,
    W: Input,
    b: Optional[Input] = None,
    stride: Ints = 1,
    pad: Ints = 0,
    outsize: Optional[Sequence[int]] = None,
    dilate: Ints = 1,
    groups: int = 1,
    layer_scale: Optional[LayerScale] = None,
) -> chainer.Variable:
    """N-D deconvolution whose data gradient is scaled.

    It is to :func:`scaled_deconvolution_2d` what :func:`scaled_convolution_nd` is to
    :func:`scaled_convolution_2d`.
    """
    function = ScaledDeconvolutionNDFunction(
        x.ndim - 2, stride, pad, outsize, dilate, groups, layer_scale=layer_scale
    )
    return function.apply_to(x, W, b)


def scaled_depthwise_convolution_2d(
    x: Input,
    W: Input,
    b: Optional[Input] = None,
    stride: Ints = 1,
    pad: Ints = 0,
    layer_scale: Optional[LayerScale] = None,
) -> chainer.Variable:
    """Depthwise convolution whose data gradient is scaled.

    The arguments are those of :func:`scaled_convolution_2d`, except W of shape (multiplier, in, kh,
    kw) and b of shape (in * multiplier,). Returns y of shape (n, in * multiplier, oh, ow).
    """
    multiplier, channels, kh, kw = W.shape
    by_channel = F.swapaxes(W, 0, 1).reshape(multiplier * channels, 1, kh, kw)
    return scaled_convolution_2d(
        x, by_channel, b, stride, pad, groups=channels, layer_scale=layer_scale
    )


class ScaledLocalConvolution2DFunction(ScaledLayerFunction, LocalConvolution2DFunction):
    """:class:`ScaledLayerFunction` of a local convolution."""

    def geometry(self) -> geometry.LocalConvolution2D:
        """Returns a :class:`~chainerlp.geometry.LocalConvolution2D`."""
        return geometry.LocalConvolution2D((self.sy, self.sx))


def scaled_local_convolution_2d(
    x: Input,
    W: Input,
    b: Optional[Input] = None,
    stride: Ints = 1,
    layer_scale: Optional[LayerScale] = None,
) -> chainer.Variable:
    """Local convolution whose data gradient is scaled.

    The arguments are those of :func:`scaled_convolution_2d`, except W of shape (out, oh, ow, in,
    kh, kw) and b of shape (out, oh, ow). Returns y of shape (n, out, oh, ow).
    """
    function = ScaledLocalConvolution2DFunction(stride, layer_scale=layer_scale)
    return function.apply_to(x, W, b)


def scaled_deformable_convolution_2d_sampler(
    x: Input,
    offset: Input,
    W: Input,
    b: Optional[Input] = None,
    stride: Ints = 1,
    pad: Ints = 0,
    layer_scale: Optional[LayerScale] = None,
) -> chainer.Variable:
    """Deformable convolution whose data gradient is scaled.

    In float16, or with a ``layer_scale`` that rounds, the samples are taken in float32 and rounded
    to x's dtype, and so is their gradient; the product with the weight is :func:`scaled_linear`'s.
    Otherwise it is Chainer's function.

    The arguments are those of :func:`scaled_convolution_2d`, and ``offset``, the offsets of the
    samples, of shape (n, 2 kh kw, oh, ow): first the horizontal ones.
    """
    rounds = layer_scale is not None and layer_scale.rounds
    if not (x.dtype == numpy.float16 or rounds) or offset.shape[1] != 2 * W.shape[2] * W.shape[3]:
        return F.deformable_convolution_2d_sampler(x, offset, W, b, stride, pad)
    out, channels, kh, kw = W.shape
    n, _, oh, ow = offset.shape
    stride, (ph, pw) = conv_nd.as_tuple(stride, 2), conv_nd.as_tuple(pad, 2)
    padded = F.pad(F.cast(x, 'float32'), ((0, 0), (0, 0), (ph, ph), (pw, pw)), 'constant')
    grid = _grid(F.cast(offset, 'float32'), (kh, kw), stride, padded.shape[2:])
    samples = F.cast(F.spatial_transformer_sampler(padded, grid), x.dtype)
    size = channels * kh * kw
    rows = samples.transpose(0, 3, 1, 2).reshape(n * oh * ow, size)
    y = scaled_linear(rows, W.reshape(out, size), b, layer_scale=layer_scale)
    return y.reshape(n, oh, ow, out).transpose(0, 3, 1, 2)


def _grid(offset, k, stride, size):
    """Returns where the samples are taken, (n, 2, kh kw, oh ow), from -1 to 1 over the input."""
    n, _, oh, ow = offset.shape
    xp = chainer.backend.get_array_module(offset)
    # Axes of the positions: direction (horizontal first), kh, kw, oh, ow.
    dtype = numpy.float32
    y = xp.arange(k[0], dtype=dtype)[:, None, None, None]
    y = y + xp.arange(oh, dtype=dtype)[:, None] * stride[0]
    x = xp.arange(k[1], dtype=dtype)[:, None, None]
    x = x + xp.arange(ow, dtype=dtype) * stride[1]
    shape = k + (oh, ow)
    positions = xp.stack([xp.broadcast_to(x, shape), xp.broadcast_to(y, shape)])
    positions = positions.reshape(2, k[0] * k[1], oh * ow)
    last = xp.asarray([size[1] - 1, size[0] - 1], dtype=dtype)[:, None, None]
    sampled = offset.reshape((n,) + positions.shape) + positions
    return (sampled / xp.broadcast_to(last, sampled.shape) - 0.5) * 2
