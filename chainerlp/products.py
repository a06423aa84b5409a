"""The float32 products of a layer: its output, its data gradient, its weight gradient.

The CPU stands for a tensor core (design, section 5): factors rounded to float16, products
accumulated in float32 by BLAS. Rounding the result is left to the caller, who may scale it first.
All arrays are float32; NumPy and CuPy are treated alike.
"""

import dataclasses
import math

import numpy
from chainer import backend
from chainer.utils import conv


def linear(x, W):
    """Returns y = x Wᵀ for x (batch, in) and W (out, in)."""
    return x.dot(W.T)


def linear_data_gradient(gy, W):
    """Returns gx = gy W for gy (batch, out) and W (out, in)."""
    return gy.dot(W)


def linear_weight_gradient(x, gy):
    """Returns gW = gyᵀ x for gy (batch, out) and x (batch, in)."""
    return gy.T.dot(x)


@dataclasses.dataclass(frozen=True)
class Convolution2D:
    """The geometry of a 2-D convolution, and its three products.

    Attributes:
        stride (tuple of int): (vertical, horizontal).
        pad (tuple of int): (vertical, horizontal).
        dilate (tuple of int): (vertical, horizontal).
        groups (int): Number of groups of channels.
    """

    stride: tuple = (1, 1)
    pad: tuple = (0, 0)
    dilate: tuple = (1, 1)
    groups: int = 1

    def output(self, x, W):
        """Returns y (n, out, oh, ow) for x (n, in, h, w) and W (out, in / groups, kh, kw)."""
        xp = backend.get_array_module(x)
        columns, out_size = self._columns(x, W.shape)
        y = xp.matmul(self._group_weight(W), columns)
        return y.reshape((x.shape[0], W.shape[0]) + out_size)

    def data_gradient(self, gy, W, x_size=None):
        """Returns gx (n, in, h, w) for gy (n, out, oh, ow) and W (out, in / groups, kh, kw).

        Args:
            gy (:ref:`ndarray`): The gradient of the output.
            W (:ref:`ndarray`): The weight.
            x_size (tuple of int): Height and width of x; the smallest that fits, by default.
        """
        xp = backend.get_array_module(gy)
        n, _, oh, ow = gy.shape
        kh, kw = W.shape[2:]
        weight = self._group_weight(W).swapaxes(-1, -2)
        columns = xp.matmul(weight, self._group_outputs(gy))
        columns = columns.reshape(n, W.shape[1] * self.groups, kh, kw, oh, ow)
        if x_size is None:
            x_size = tuple(
                conv.get_deconv_outsize(size, k, s, p, d=d)
                for size, k, s, p, d in zip((oh, ow), (kh, kw), self.stride, self.pad, self.dilate)
            )
        dy, dx = self.dilate
        return conv.col2im(columns, *self.stride, *self.pad, *x_size, dy=dy, dx=dx)

    def weight_gradient(self, x, gy, W_shape):
        """Returns gW of shape ``W_shape`` for x (n, in, h, w) and gy (n, out, oh, ow)."""
        xp = backend.get_array_module(x)
        columns, _ = self._columns(x, W_shape)
        outputs = self._group_outputs(gy)
        total = xp.zeros(outputs.shape[1:3] + columns.shape[2:3], numpy.float32)
        # One image after the other: all at once would hold the batch size times the weight.
        for image_output, image_columns in zip(outputs, columns):
            total += xp.matmul(image_output, image_columns.swapaxes(-1, -2))
        return total.reshape(W_shape)

    def terms(self, W_shape):
        """Returns how many products are summed into an element of gx (K of the paper)."""
        out_channels, _, kh, kw = W_shape
        return out_channels // self.groups * kh * kw

    def _columns(self, x, W_shape):
        kh, kw = W_shape[2:]
        dy, dx = self.dilate
        columns = conv.im2col(x, kh, kw, *self.stride, *self.pad, dy=dy, dx=dx)
        n, channels = x.shape[:2]
        oh, ow = columns.shape[-2:]
        shape = (n, self.groups, channels // self.groups * kh * kw, oh * ow)
        return columns.reshape(shape), (oh, ow)

    def _group_weight(self, W):
        return W.reshape(self.groups, W.shape[0] // self.groups, math.prod(W.shape[1:]))

    def _group_outputs(self, gy):
        n, channels, oh, ow = gy.shape
        return gy.reshape(n, self.groups, channels // self.groups, oh * ow)


def default_data_gradient(gy, W):
    """Returns gx of the plain layer that gy and W belong to.

    Args:
        gy (:ref:`ndarray`): (batch, out), or (n, out, oh, ow).
        W (:ref:`ndarray`): (out, in) of a linear layer, or (out, in, kh, kw) of a convolution of
            stride 1, without padding.

    Raises:
        ValueError: If the shapes are those of neither.
    """
    if gy.ndim == W.ndim and gy.shape[1:2] == W.shape[:1]:
        if W.ndim == 2:
            return linear_data_gradient(gy, W)
        if W.ndim == 4:
            return Convolution2D().data_gradient(gy, W)
    raise ValueError(
        'the product of gy and W is formed for shapes (batch, out) and (out, in), or'
        f' (n, out, h, w) and (out, in, kh, kw), not {gy.shape} and {W.shape}; hand it in as'
        ' product='
    )
