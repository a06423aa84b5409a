"""Depthwise convolution whose data gradient is scaled.

Beside ``chainer.functions.depthwise_convolution_2d``.
"""

from chainerlp.functions.convolution_2d import scaled_convolution_2d

import chainer.functions as F


def scaled_depthwise_convolution_2d(x, W, b=None, stride=1, pad=0, layer_scale=None):
    """Depthwise convolution whose data gradient is scaled.

    Args:
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Input of shape (n, in, h, w).
        W (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape (multiplier, in, kh, kw).
        b (:class:`~chainer.Variable` or :ref:`ndarray`): Bias of shape (in * multiplier,), or
            ``None``.
        stride (int or pair of ints): Stride.
        pad (int or pair of ints): Padding width.
        layer_scale (LayerScale): What chooses the scale; ``None`` scales nothing.

    Returns:
        ~chainer.Variable: Output of shape (n, in * multiplier, oh, ow).
    """
    multiplier, channels, kh, kw = W.shape
    by_channel = F.swapaxes(W, 0, 1).reshape(multiplier * channels, 1, kh, kw)
    return scaled_convolution_2d(
        x, by_channel, b, stride, pad, groups=channels, layer_scale=layer_scale
    )
