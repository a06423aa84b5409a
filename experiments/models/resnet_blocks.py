"""What residual networks are built from: convolution with batch normalization, blocks, stages.

He et al. (2016a): *Deep Residual Learning for Image Recognition*; He et al. (2016b): *Identity
Mappings in Deep Residual Networks*. Every block maps features of shape (n, in_channels, h, w) to
(n, out_channels, h / stride, w / stride), and computes in the dtype that Chainer is configured for
when it is built.
"""

import chainer
from chainer import functions, links


class ConvBN(chainer.Chain):
    """A convolution that keeps the size of an image at stride 1, and batch normalization.

    Weights after He et al. (2015). In mixed16 batch normalization keeps its parameters and
    statistics in float32.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        ksize (int): Height and width of the filters, odd.
        stride (int): Of the convolution, both ways.
        nobias (bool): Whether the convolution has no bias; normalization would take it off again.
        initial_gamma (float): The initial scale of the batch normalization.
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
        """Returns the normalized features."""
        return self.bn(self.conv(x))


class IdentityShortcut(chainer.Link):
    """The shortcut without parameters: option A of He et al. (2016a), section 3.3.

    It takes every ``stride``-th pixel, both ways, and pads new channels with zeros.

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
        """Returns ``x``, subsampled and padded."""
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            x = functions.pad(x, ((0, 0), (0, self.new_channels), (0, 0), (0, 0)), 'constant')
        return x


def projection_shortcut(in_channels, out_channels, stride):
    """Returns the shortcut of option B: a 1×1 convolution where the shape changes, or the identity.

    The arguments are those of :class:`IdentityShortcut`.
    """
    if stride == 1 and in_channels == out_channels:
        return IdentityShortcut(in_channels, out_channels, stride)
    return ConvBN(in_channels, out_channels, 1, stride)


class BasicBlock(chainer.Chain):
    """Two 3×3 convolutions beside a shortcut, and ReLU after the sum.

    He et al. (2016a), figure 5, left.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output.
        stride (int): Of the first convolution and the shortcut.
        shortcut (callable): Makes the shortcut's link from the three above.
        zero_init_residual (bool): Whether the last gamma starts at zero, so that the block starts
            as its shortcut and ReLU (Goyal et al., 2017, section 5.1).
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        stride,
        shortcut=projection_shortcut,
        zero_init_residual=False,
    ):
        super().__init__()
        last_gamma = 0 if zero_init_residual else 1
        with self.init_scope():
            self.conv1 = ConvBN(in_channels, out_channels, 3, stride)
            self.conv2 = ConvBN(out_channels, out_channels, 3, initial_gamma=last_gamma)
            self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        """Returns the block's features."""
        h = functions.relu(self.conv1(x))
        return functions.relu(self.conv2(h) + self.shortcut(x))


class Bottleneck(chainer.Chain):
    """1×1, 3×3 and 1×1 convolutions beside a projection shortcut, and ReLU after the sum.

    He et al. (2016a), figure 5, right. The first two convolutions have a quarter of the channels.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output, a multiple of four.
        stride (int): Of a convolution and the shortcut.
        stride_in_3x3 (bool): Whether the 3×3 convolution has the stride and not the first 1×1.
        zero_init_residual (bool): As of :class:`BasicBlock`.
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
            self.shortcut = projection_shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        """Returns the block's features."""
        h = functions.relu(self.conv1(x))
        h = functions.relu(self.conv2(h))
        return functions.relu(self.conv3(h) + self.shortcut(x))


class PreActivationBottleneck(chainer.Chain):
    """1×1, 3×3 and 1×1 convolutions, each after batch normalization and ReLU, beside a shortcut.

    He et al. (2016b), figure 4(e) and the appendix. Nothing comes after the sum, so the shortcuts
    are an identity through a whole stage. Where the shape changes, the shortcut is a 1×1
    convolution of the block's first activation.

    Args:
        in_channels (int): Channels of the input.
        out_channels (int): Channels of the output, a multiple of four.
        stride (int): Of the first convolution and the shortcut.
    """

    def __init__(self, in_channels, out_channels, stride):
        super().__init__()
        width = out_channels // 4
        he = chainer.initializers.HeNormal()
        with self.init_scope():
            self.bn = links.BatchNormalization(in_channels)
            self.conv1 = ConvBN(in_channels, width, 1, stride)
            self.conv2 = ConvBN(width, width, 3)
            self.conv3 = links.Convolution2D(width, out_channels, 1, nobias=True, initialW=he)
            if stride == 1 and in_channels == out_channels:
                self.shortcut = None
            else:
                self.shortcut = links.Convolution2D(
                    in_channels, out_channels, 1, stride, nobias=True, initialW=he
                )

    def forward(self, x):
        """Returns the block's features."""
        activation = functions.relu(self.bn(x))
        shortcut = x if self.shortcut is None else self.shortcut(activation)
        h = functions.relu(self.conv1(activation))
        h = functions.relu(self.conv2(h))
        return self.conv3(h) + shortcut


def stage(block, repeats, in_channels, out_channels, stride):
    """Chains residual blocks, the first of which may change the shape.

    Args:
        block (callable): Makes a block from its input channels, output channels and stride.
        repeats (int): Number of blocks.
        in_channels (int): Channels of the stage's input.
        out_channels (int): Channels of every block's output.
        stride (int): Of the first block; the others have 1.

    Returns:
        ~chainer.Sequential: The blocks.
    """
    first = block(in_channels, out_channels, stride)
    others = (block(out_channels, out_channels, 1) for _ in range(repeats - 1))
    return chainer.Sequential(first, *others)
