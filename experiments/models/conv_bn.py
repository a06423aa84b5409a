"""A convolution and the batch normalization after it."""

import chainer
from chainer import links


class ConvBN(chainer.Chain):
    """A convolution that keeps the size of an image at stride 1, and batch normalization.

    Weights after He et al. (2015). It computes in the dtype that Chainer is configured for when it
    is built; in mixed16 batch normalization keeps its parameters and statistics in float32.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        ksize (int): Height and width of the filters, odd.
        stride (int): Of the convolution, both ways.
        nobias (bool): The convolution has no bias; normalization would take it off again.
        initial_gamma (float): What batch normalization multiplies by at the start.
    """

    def __init__(self, in_channels, out_channels, ksize, stride=1, nobias=True, initial_gamma=1):
        super().__init__()
        with self.init_scope():
            self.conv = links.Convolution2D(
                in_channels,
                out_channels,
                ksize,
                stride,
                pad=ksize // 2,
                nobias=nobias,
                initialW=chainer.initializers.HeNormal(),
            )
            self.bn = links.BatchNormalization(out_channels, initial_gamma=initial_gamma)

    def forward(self, x):
        """Returns the normalized features (n, out_channels, h / stride, w / stride)."""
        return self.bn(self.conv(x))
