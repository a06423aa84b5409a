"""Deformable convolution whose data gradient is scaled.

Beside ``chainer.functions.deformable_convolution_2d_sampler``.
"""

from chainerlp.functions.linear import scaled_linear

import chainer
import chainer.functions as F
import numpy
from chainer.utils import conv_nd


def scaled_deformable_convolution_2d_sampler(
    x, offset, W, b=None, stride=1, pad=0, layer_scale=None
):
    """Deformable convolution whose data gradient is scaled.

    In float16 the samples are taken in float32 and rounded, and so is their gradient; the product
    with the weight is :func:`scaled_linear`'s. Otherwise it is Chainer's function.

    Args:
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Input of shape (n, in, h, w).
        offset (:class:`~chainer.Variable` or :ref:`ndarray`): Offsets of the samples, of shape
            (n, 2 kh kw, oh, ow): first the horizontal ones.
        W (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape (out, in, kh, kw).
        b (:class:`~chainer.Variable` or :ref:`ndarray`): Bias of shape (out,), or ``None``.
        stride (int or pair of ints): Stride.
        pad (int or pair of ints): Padding width.
        layer_scale (LayerScale): What chooses the scale; ``None`` scales nothing.

    Returns:
        ~chainer.Variable: Output of shape (n, out, oh, ow).
    """
    if x.dtype != numpy.float16 or offset.shape[1] != 2 * W.shape[2] * W.shape[3]:
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
