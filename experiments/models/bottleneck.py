"""The residual block of three convolutions, the 3×3 one in a bottleneck."""

from experiments.models.conv_bn import ConvBN
from experiments.models.shortcuts import projection

import chainer
from chainer import functions


class Bottleneck(chainer.Chain):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut, and ReLU after the sum.

    He et al. (2016): *Deep Residual Learning for Image Recognition*, figure 5, right. The first two
    convolutions have a quarter of the block's channels.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output, a multiple of four.
        stride (int): Of one convolution and the shortcut.
        stride_in_3x3 (bool): The 3×3 convolution has the stride and not the first 1×1.
        zero_init_residual (bool): The last gamma starts at zero, and so the block as its shortcut
            and ReLU (Goyal et al., 2017, section 5.1).
    """

    def __init__(
        self, in_channels, out_channels, stride, stride_in_3x3=False, zero_init_residual=False
    ):
        super().__init__()
        width = out_channels // 4
        first, second = (1, stride) if stride_in_3x3 else (stride, 1)
        last_gamma = 0 if zero_init_residual else 1
        with self.init_scope():
            self.conv1 = ConvBN(in_channels, width, 1, first)
            self.conv2 = ConvBN(width, width, 3, second)
            self.conv3 = ConvBN(width, out_channels, 1, initial_gamma=last_gamma)
            self.shortcut = projection(in_channels, out_channels, stride)

    def forward(self, x):
        """Returns the features (n, out_channels, h / stride, w / stride)."""
        h = functions.relu(self.conv1(x))
        h = functions.relu(self.conv2(h))
        h = self.conv3(h)
        return functions.relu(h + self.shortcut(x))
