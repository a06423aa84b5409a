"""The shortcuts of residual blocks: He et al. (2016), section 3.3, options A and B."""

from experiments.models.conv_bn import ConvBN

import chainer
from chainer import functions


class PaddedIdentity(chainer.Link):
    """The shortcut of option A, without parameters: the identity, made to fit the block's output.

    Of an image every ``stride``-th pixel is taken, both ways; new channels are zero.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output, as many or more.
        stride (int): Of the block.
    """

    def __init__(self, in_channels, out_channels, stride):
        super().__init__()
        self.new_channels = out_channels - in_channels
        self.stride = stride

    def forward(self, x):
        """Returns ``x``, subsampled and padded to (n, out_channels, h / stride, w / stride)."""
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            x = functions.pad(x, ((0, 0), (0, self.new_channels), (0, 0), (0, 0)), 'constant')
        return x


def projection(in_channels, out_channels, stride):
    """Returns the shortcut of option B: a 1×1 convolution where the shape changes, or the identity.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        stride (int): Of the block.
    """
    if stride == 1 and in_channels == out_channels:
        return PaddedIdentity(in_channels, out_channels, stride)
    return ConvBN(in_channels, out_channels, 1, stride)
