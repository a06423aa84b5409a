"""The geometries of Chainer's layers: three products each, and K.

Factors are rounded to float16, products accumulated in float32 (:mod:`chainerlp.gemm`; design,
section 5). What is handed in is a :func:`~chainerlp.gemm.factor` each. ``output``,
``data_gradient`` and ``weight_gradient`` multiply the float32 sums by ``scale`` and round them to
``dtype``, once: by 1 and to float32 by default.
"""

import dataclasses
import math
from typing import Optional

from chainerlp import gemm
from chainerlp.gpu import elementwise_scalars, on_gpu
from chainerlp.rounding import scale_and_round
from chainerlp.window import MOST_AXES, Window

import numpy
from chainer.backends import cuda
from chainer.utils import conv, conv_nd


class Geometry:
    """Base of the geometries: has ``output``, ``data_gradient`` and ``weight_gradient`` besides."""

    def terms(self, W_shape):
        """Returns how many products are summed into an element of gx (K of the paper)."""
        return W_shape[0]

    def weight_by_output(self, W):
        """Returns W with the outputs, or the output channels, on its first axis."""
        return W

    def window(self, gy_shape, W_shape, x_size):
        """Returns the :class:`~chainerlp.window.Window` of gx on gy.

        ``None`` where there are no positions, but only rows, or too many axes of them.
        """
        return None


@dataclasses.dataclass(frozen=True)
class Linear(Geometry):
    """The three products of a linear layer."""

    def output(self, x, W, scale=1.0, dtype=numpy.float32):
        """Returns y = x Wᵀ for x (batch, in) and W (out, in)."""
        return gemm.multiply(x, W.T, scale, dtype)

    def data_gradient(self, gy, W, x_size=(), scale=1.0, dtype=numpy.float32):
        """Returns gx = gy W for gy (batch, out) and W (out, in)."""
        return gemm.multiply(gy, W, scale, dtype)

    def weight_gradient(self, x, gy, W_shape=None, scale=1.0, dtype=numpy.float32):
        """Returns gW = gyᵀ x for x (batch, in) and gy (batch, out)."""
        return gemm.multiply(gy.T, x, scale, dtype)


@dataclasses.dataclass(frozen=True)
class Convolution(Geometry):
    """The geometry of a convolution of any number of dimensions, and its three products.

    ``size`` stands for the sizes of the spatial axes, such as (h, w), and ``k`` for the kernel's.

    Attributes:
        stride (tuple of int): One number for each spatial axis, such as (vertical, horizontal).
        pad (tuple of int): Likewise.
        dilate (tuple of int): Likewise.
        groups (int): Number of groups of channels.
        cover_all (bool): Whether the last positions of the kernel may leave the padded input.
    """

    stride: tuple = (1, 1)
    pad: tuple = (0, 0)
    dilate: tuple = (1, 1)
    groups: int = 1
    cover_all: bool = False

    def output(self, x, W, scale=1.0, dtype=numpy.float32):
        """Returns y (n, out, *size) for x (n, in, *size) and W (out, in / groups, *k)."""
        columns, out_size = self._columns(x, W.shape)
        y = gemm.multiply(self._group_weight(W), columns, scale, dtype)
        return y.reshape((x.shape[0], W.shape[0]) + out_size)

    def data_gradient(self, gy, W, x_size=None, scale=1.0, dtype=numpy.float32):
        """Returns gx (n, in, *size) for gy (n, out, *size) and W (out, in / groups, *k).

        ``x_size`` is the spatial size of x: the smallest that fits, by default.
        """
        out_size, k = gy.shape[2:], W.shape[2:]
        factors = self._group_weight(W).swapaxes(-1, -2), self._group_outputs(gy)
        if self._is_pointwise(k):
            gx = gemm.multiply(*factors, scale, dtype)
            return gx.reshape((gy.shape[0], W.shape[1] * self.groups) + out_size)
        columns = gemm.multiply(*factors)
        columns = columns.reshape((gy.shape[0], W.shape[1] * self.groups) + k + out_size)
        if x_size is None:
            x_size = self.smallest_input(out_size, k)
        if len(k) == 2:
            return _col2im(columns, self.stride, self.pad, x_size, self.dilate, scale, dtype)
        gx = conv_nd.col2im_nd(columns, self.stride, self.pad, x_size, dilate=self.dilate)
        return scale_and_round(gx, scale, dtype)

    def weight_gradient(self, x, gy, W_shape, scale=1.0, dtype=numpy.float32):
        """Returns gW of shape ``W_shape`` for x (n, in, *size) and gy (n, out, *size)."""
        columns, _ = self._columns(x, W_shape)
        sum_over_images = _sum_at_once if on_gpu(x) else _sum_by_image
        return sum_over_images(self._group_outputs(gy), columns, scale, dtype).reshape(W_shape)

    def terms(self, W_shape):
        """Returns K."""
        return W_shape[0] // self.groups * math.prod(W_shape[2:])

    def window(self, gy_shape, W_shape, x_size):
        """Returns the :class:`~chainerlp.window.Window`, of one to three axes."""
        return self._window(gy_shape[2:], x_size, W_shape[2:])

    def _window(self, gy_size, x_size, k, is_convolved=False):
        if len(k) > MOST_AXES:
            return None
        steps = self.stride, self.pad, self.dilate
        return Window(gy_size, x_size, k, *steps, self.groups, is_convolved)

    def smallest_input(self, out_size, k):
        """Returns the smallest spatial size of x that gives y this spatial size."""
        return tuple(
            conv.get_deconv_outsize(*sizes, d=d)
            for *sizes, d in zip(out_size, k, self.stride, self.pad, self.dilate)
        )

    def _is_pointwise(self, k):
        """Returns whether y at a position is made of x at that position, and there are no sums."""
        return set(k + self.stride) <= {1} and not any(self.pad)

    def _columns(self, x, W_shape):
        k = W_shape[2:]
        if self._is_pointwise(k):
            columns = x
        elif len(k) == 2:
            dy, dx = self.dilate
            columns = conv.im2col(
                x, *k, *self.stride, *self.pad, cover_all=self.cover_all, dy=dy, dx=dx
            )
        else:
            columns = conv_nd.im2col_nd(
                x, k, self.stride, self.pad, cover_all=self.cover_all, dilate=self.dilate
            )
        n, channels = x.shape[:2]
        out_size = columns.shape[-len(k) :]
        rows = channels // self.groups * math.prod(k)
        return columns.reshape(n, self.groups, rows, math.prod(out_size)), out_size

    def _group_weight(self, W):
        return W.reshape(self.groups, W.shape[0] // self.groups, math.prod(W.shape[1:]))

    def _group_outputs(self, gy):
        n, channels, *size = gy.shape
        return gy.reshape(n, self.groups, channels // self.groups, math.prod(size))


def _col2im(columns, stride, pad, size, dilate, scale, dtype):
    """Adds up float32 columns (n, channels, kh, kw, oh, ow) to images, scales and rounds them.

    On a GPU in one pass, in which each element is summed in float32.

    Returns:
        :ref:`ndarray`: Shape (n, channels, *size), of ``dtype``.
    """
    if not on_gpu(columns):
        dy, dx = dilate
        images = conv.col2im(columns, *stride, *pad, *size, dy=dy, dx=dx)
        return scale_and_round(images, scale, dtype)
    n, channels, kh, kw, oh, ow = columns.shape
    images = cuda.cupy.empty((n, channels, *size), dtype)
    parameter, loop_prep, (scale,) = elementwise_scalars(scale=scale)
    add_up = cuda.elementwise(
        'raw float32 columns, int32 h, int32 w, int32 oh, int32 ow, int32 kh, int32 kw, int32 sy,'
        f' int32 sx, int32 ph, int32 pw, int32 dy, int32 dx, {parameter}',
        'T image',
        """
        const int x = i % w + pw, y = i / w % h + ph;
        const ptrdiff_t channel = i / ((ptrdiff_t)w * h);
        float sum = 0;
        for (int ky = 0; ky < kh; ++ky) {
            const int row = y - ky * dy;
            if (row < 0 || row % sy != 0 || row / sy >= oh) continue;
            for (int kx = 0; kx < kw; ++kx) {
                const int column = x - kx * dx;
                if (column < 0 || column % sx != 0 || column / sx >= ow) continue;
                const ptrdiff_t kernel = (channel * kh + ky) * kw + kx;
                sum += columns[(kernel * oh + row / sy) * ow + column / sx];
            }
        }
        image = sum * scale;
        """,
        'chainerlp_col2im',
        loop_prep=loop_prep,
    )
    add_up(columns.ravel(), *size, oh, ow, kh, kw, *stride, *pad, *dilate, scale, images)
    return images


def _sum_by_image(outputs, columns, scale, dtype):
    """Sums (n, groups, out, p) by (n, groups, rows, p) over n and p, one image after the other.

    On the CPU nothing is moved for it, and all at once would hold the batch size times the weight.
    """
    total = numpy.zeros(outputs.shape[1:3] + columns.shape[2:3], numpy.float32)
    for image_output, image_columns in zip(outputs, columns):
        total += gemm.multiply(image_output, image_columns.swapaxes(-1, -2))
    return scale_and_round(total, scale, dtype)


def _sum_at_once(outputs, columns, scale, dtype):
    """:func:`_sum_by_image` as one product, for a GPU: a launch an image costs more than moving."""
    _, groups, out, _ = outputs.shape
    rows = columns.shape[2]
    outputs = outputs.transpose(1, 2, 0, 3).reshape(groups, out, -1)
    columns = columns.transpose(1, 2, 0, 3).reshape(groups, rows, -1)
    return gemm.multiply(outputs, columns.swapaxes(-1, -2), scale, dtype)


@dataclasses.dataclass(frozen=True)
class Deconvolution(Geometry):
    """The geometry of a deconvolution, the transpose of a convolution, and its three products.

    Attributes:
        transpose (Convolution): The convolution whose data gradient is this layer's output.
        out_size (tuple of int): Spatial size of y; the smallest that fits, by default.
    """

    transpose: Convolution
    out_size: Optional[tuple[int, ...]] = None

    def output(self, x, W, scale=1.0, dtype=numpy.float32):
        """Returns y (n, out, *size) for x (n, in, *size) and W (in, out / groups, *k)."""
        return self.transpose.data_gradient(x, W, self.out_size, scale, dtype)

    def data_gradient(self, gy, W, x_size=None, scale=1.0, dtype=numpy.float32):
        """Returns gx (n, in, *size) for gy (n, out, *size) and W (in, out / groups, *k)."""
        return self.transpose.output(gy, W, scale, dtype)

    def weight_gradient(self, x, gy, W_shape, scale=1.0, dtype=numpy.float32):
        """Returns gW of shape ``W_shape`` for x (n, in, *size) and gy (n, out, *size)."""
        return self.transpose.weight_gradient(gy, x, W_shape, scale, dtype)

    def terms(self, W_shape):
        """Returns K."""
        return math.prod(W_shape[1:])

    def window(self, gy_shape, W_shape, x_size):
        """Returns the :class:`~chainerlp.window.Window`, of one to three axes."""
        return self.transpose._window(gy_shape[2:], x_size, W_shape[2:], is_convolved=True)

    def weight_by_output(self, W):
        """Returns W with the output channels on its first axis: (out, in / groups, *k)."""
        groups, (channels, per_group, *k) = self.transpose.groups, W.shape
        by_group = W.reshape(groups, channels // groups, per_group, *k)
        return by_group.swapaxes(1, 2).reshape(groups * per_group, channels // groups, *k)


@dataclasses.dataclass(frozen=True)
class LocalConvolution2D(Geometry):
    """The geometry of a 2-D convolution with a kernel of its own at each position.

    Attributes:
        stride (tuple of int): (vertical, horizontal).
    """

    stride: tuple = (1, 1)

    def output(self, x, W, scale=1.0, dtype=numpy.float32):
        """Returns y (n, out, oh, ow) for x (n, in, h, w) and W (out, oh, ow, in, kh, kw)."""
        out, oh, ow = W.shape[:3]
        weight = self._weight_by_position(W).swapaxes(-1, -2)
        by_position = gemm.multiply(self._columns(x, W.shape), weight, scale, dtype)
        return by_position.reshape(oh, ow, len(x), out).transpose(2, 3, 0, 1)

    def data_gradient(self, gy, W, x_size, scale=1.0, dtype=numpy.float32):
        """Returns gx (n, in, *x_size) for gy (n, out, oh, ow) and W."""
        columns = gemm.multiply(self._by_position(gy), self._weight_by_position(W))
        columns = columns.reshape(W.shape[1:3] + gy.shape[:1] + W.shape[3:])
        columns = columns.transpose(2, 3, 4, 5, 0, 1)
        return _col2im(columns, self.stride, (0, 0), x_size, (1, 1), scale, dtype)

    def weight_gradient(self, x, gy, W_shape, scale=1.0, dtype=numpy.float32):
        """Returns gW of shape ``W_shape`` for x (n, in, h, w) and gy (n, out, oh, ow)."""
        by_position = self._by_position(gy).swapaxes(-1, -2)
        gW = gemm.multiply(by_position, self._columns(x, W_shape), scale, dtype)
        return gW.swapaxes(0, 1).reshape(W_shape)

    def terms(self, W_shape):
        """Returns K."""
        return W_shape[0] * math.prod(W_shape[4:])

    def window(self, gy_shape, W_shape, x_size):
        """Returns the :class:`~chainerlp.window.Window`."""
        return Convolution(self.stride)._window(gy_shape[2:], x_size, W_shape[4:])

    def _columns(self, x, W_shape):
        _, oh, ow, channels, kh, kw = W_shape
        columns = conv.im2col(x, kh, kw, *self.stride, 0, 0, out_h=oh, out_w=ow)
        columns = columns.transpose(4, 5, 0, 1, 2, 3)
        return columns.reshape(oh * ow, x.shape[0], channels * kh * kw)

    def _weight_by_position(self, W):
        out, oh, ow, *kernel = W.shape
        return W.reshape(out, oh * ow, math.prod(kernel)).swapaxes(0, 1)

    def _by_position(self, gy):
        n, out, oh, ow = gy.shape
        return gy.transpose(2, 3, 0, 1).reshape(oh * ow, n, out)


def plain_data_gradient(gy, W):
    """Returns gx, in float32, of the plain layer that gy and W belong to.

    Args:
        gy (:ref:`ndarray`): (batch, out), or (n, out, oh, ow).
        W (:ref:`ndarray`): (out, in) of a linear layer, or (out, in, kh, kw) of a convolution of
            stride 1, without padding.

    Raises:
        ValueError: If the shapes are those of neither.
    """
    if gy.ndim == W.ndim and gy.shape[1:2] == W.shape[:1]:
        if W.ndim == 2:
            return Linear().data_gradient(gy, W)
        if W.ndim == 4:
            return Convolution().data_gradient(gy, W)
    raise ValueError(
        'the product of gy and W is formed for shapes (batch, out) and (out, in), or'
        f' (n, out, h, w) and (out, in, kh, kw), not {gy.shape} and {W.shape}; hand it in as'
        ' product='
    )
