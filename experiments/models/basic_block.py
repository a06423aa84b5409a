"""The residual block of two 3×3 convolutions."""

from experiments.models.conv_bn import ConvBN
from experiments.models.shortcuts import projection

import chainer
from chainer import functions


class BasicBlock(chainer.Chain):
    """Two 3×3 convolutions beside a shortcut, and ReLU after the sum.

    He et al. (2016): *Deep Residual Learning for Image Recognition*, figure 5, left.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        stride (int): Of the first convolution and the shortcut.
        shortcut (callable): Makes the shortcut's link from the three above.
        zero_init_residual (bool): The last gamma starts at zero, and so the block as its shortcut
            and ReLU (Goyal et al., 2017, section 5.1).
    """

    def __init__(
        self, in_channels, out_channels, stride, shortcut=projection, zero_init_residual=False
    ):
        super().__init__()
        last_gamma = 0 if zero_init_residual else 1
        with self.init_scope():
            self.conv1 = ConvBN(in_channels, out_channels, 3, stride)
            self.conv2 = ConvBN(out_channels, out_channels, 3, initial_gamma=last_gamma)
            self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        """Returns the features (n, out_channels, h / stride, w / stride)."""
        h = functions.relu(self.conv1(x))
        h = self.conv2(h)
        return functions.relu(h + self.shortcut(x))
