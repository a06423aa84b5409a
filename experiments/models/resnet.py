"""Residual networks for CIFAR and for ImageNet, and the blocks that they are built from.

He et al. (2016a): *Deep Residual Learning for Image Recognition*; He et al. (2016b): *Identity
Mappings in Deep Residual Networks*. A block maps features (n, in_channels, h, w) to
(n, out_channels, h / stride, w / stride).

The ``zhao`` variants are those of the code of the paper on loss scaling
(``chainerlp/links/models/resnet.py`` in github.com/kumasento/ada-loss): the first shortcut of every
stage is a 1×1 convolution, a basic block has its stride in the second convolution, and weights are
normal with a variance of 2 / fan-out.
"""

import functools

from experiments.models.blocks import Blocks

import chainer
from chainer import functions, links


class CIFARResNet(chainer.Chain):
    """ResNet-20, -56, -110 and every other of depth 6n + 2, for images of about 32×32.

    He et al. (2016a), section 4.2: three stages of n blocks, whose shortcuts have no parameters
    (option A).

    Args:
        depth (int): Number of layers with weights.
        classes (int): Number of classes.
        in_channels (int): Channels of the images.
        variant (str): ``'he'``, or ``'zhao'``, see the module.

    Raises:
        ValueError: If there is no such network of this depth.
    """

    def __init__(self, depth, classes, in_channels=3, variant='he'):
        super().__init__()
        blocks = _blocks_per_stage(depth, layers=2, known='20, 56 or 110')
        block, first = functools.partial(BasicBlock, shortcut=IdentityShortcut), {}
        if variant == 'zhao':
            block, first = _ZHAO_BLOCK, _ZHAO_FIRST
        with self.init_scope():
            self.conv1 = ConvBN(in_channels, 16, 3)
            self.stage1 = stage(block, blocks, 16, 16, stride=1, **first)
            self.stage2 = stage(block, blocks, 16, 32, stride=2, **first)
            self.stage3 = stage(block, blocks, 32, 64, stride=2, **first)
            self.fc = links.Linear(64, classes, initialW=chainer.initializers.HeNormal())
        if variant == 'zhao':
            _draw_by_fan_out(self)

    def forward(self, x):
        """Returns the logits of a batch of images (n, channels, h, w)."""
        h = functions.relu(self.conv1(x))
        h = self.stage3(self.stage2(self.stage1(h)))
        return self.fc(functions.mean(h, axis=(2, 3)))


class PreActivationResNet(chainer.Chain):
    """ResNet-164 v2 and every other of depth 9n + 2, for images of about 32×32.

    He et al. (2016b): three stages of n bottlenecks. Arguments and errors are those of
    :class:`CIFARResNet`; shortcuts do not count as layers.
    """

    def __init__(self, depth, classes, in_channels=3):
        super().__init__()
        blocks = _blocks_per_stage(depth, layers=3, known='164')
        he = chainer.initializers.HeNormal()
        with self.init_scope():
            self.conv1 = links.Convolution2D(in_channels, 16, 3, pad=1, nobias=True, initialW=he)
            self.stage1 = stage(PreActivationBottleneck, blocks, 16, 64, stride=1)
            self.stage2 = stage(PreActivationBottleneck, blocks, 64, 128, stride=2)
            self.stage3 = stage(PreActivationBottleneck, blocks, 128, 256, stride=2)
            self.bn = links.BatchNormalization(256)
            self.fc = links.Linear(256, classes, initialW=he)

    def forward(self, x):
        """Returns the logits of a batch of images (n, channels, h, w)."""
        h = self.stage3(self.stage2(self.stage1(self.conv1(x))))
        h = functions.relu(self.bn(h))
        return self.fc(functions.mean(h, axis=(2, 3)))


class ImageNetResNet(chainer.Chain):
    """ResNet-18 and -50, for images of about 224×224.

    He et al. (2016a), section 4.1 and table 1: four stages, whose shortcuts are 1×1 convolutions
    where the shape changes (option B).

    Args:
        depth (int): 18 or 50.
        classes (int): Number of classes.
        in_channels (int): Channels of the images.
        zero_init_residual (bool): Whether the last gamma of every block starts at zero, so that the
            block starts as its shortcut and ReLU (Goyal et al., 2017, section 5.1).
        stride_in_3x3 (bool): Whether in a block of ResNet-50 that halves the size the 3×3
            convolution does so, as in Goyal et al. (2017; also known as v1.5), and not the 1×1
            before it, as in He et al. (2016a). In ResNet-18 it is a 3×3 convolution in any case.
        variant (str): ``'he'``, or ``'zhao'``, see the module; there the linear layer's weights
            begin with a deviation of 0.01, as in Goyal et al., the first convolution of ResNet-50
            has a bias, and the first pooling no padding.

    Raises:
        ValueError: If there is no such network of this depth.
    """

    def __init__(
        self,
        depth,
        classes,
        in_channels=3,
        zero_init_residual=False,
        stride_in_3x3=False,
        variant='he',
    ):
        super().__init__()
        if depth not in _IMAGENET_BLOCKS:
            allowed = ' or '.join(map(str, _IMAGENET_BLOCKS))
            raise ValueError(f'depth: given {depth}, allowed: {allowed}')
        kind, repeats = _IMAGENET_BLOCKS[depth]
        widths, first, has_bias = (64, 128, 256, 512), {}, False
        self._pad = 0 if variant == 'zhao' else 1
        if kind is Bottleneck:
            kind = functools.partial(kind, stride_in_3x3=stride_in_3x3)
            widths = tuple(4 * width for width in widths)
            has_bias = variant == 'zhao'
        elif variant == 'zhao':
            kind, first = _ZHAO_BLOCK, _ZHAO_FIRST
        block = functools.partial(kind, zero_init_residual=zero_init_residual)
        with self.init_scope():
            self.conv1 = ConvBN(in_channels, 64, 7, stride=2, nobias=not has_bias)
            self.stage1 = stage(block, repeats[0], 64, widths[0], stride=1, **first)
            self.stage2 = stage(block, repeats[1], widths[0], widths[1], stride=2, **first)
            self.stage3 = stage(block, repeats[2], widths[1], widths[2], stride=2, **first)
            self.stage4 = stage(block, repeats[3], widths[2], widths[3], stride=2, **first)
            self.fc = links.Linear(widths[3], classes, initialW=chainer.initializers.HeNormal())
        if variant == 'zhao':
            _draw_by_fan_out(self)
            chainer.initializers.Normal(0.01)(self.fc.W.array)

    def forward(self, x):
        """Returns the logits of a batch of images (n, channels, h, w)."""
        h = functions.relu(self.conv1(x))
        h = functions.max_pooling_2d(h, 3, stride=2, pad=self._pad, cover_all=self._pad == 0)
        h = self.stage4(self.stage3(self.stage2(self.stage1(h))))
        return self.fc(functions.mean(h, axis=(2, 3)))


def _blocks_per_stage(depth, layers, known):
    """Returns n, where three stages of n blocks, the first layer and the last make up a depth."""
    blocks, rest = divmod(depth - 2, 3 * layers)
    if rest or blocks < 1:
        raise ValueError(f'depth: given {depth}, allowed: {3 * layers}n + 2, such as {known}')
    return blocks


def _draw_by_fan_out(model):
    he = chainer.initializers.HeNormal(fan_option='fan_out')
    for link in model.links():
        if isinstance(link, (links.Convolution2D, links.Linear)):
            he(link.W.array)


def stage(block, repeats, in_channels, out_channels, stride, **of_first):
    """Returns :class:`~experiments.models.blocks.Blocks`, residual, the first with the stride.

    ``block`` makes a block from its input channels, output channels and stride, and the first one
    from ``of_first`` besides.
    """
    first = block(in_channels, out_channels, stride, **of_first)
    others = (block(out_channels, out_channels, 1) for _ in range(repeats - 1))
    return Blocks(first, *others)


class ConvBN(chainer.Chain):
    """A convolution that keeps the size of an image at stride 1, and batch normalization.

    Weights after He et al. (2015); the filters' size ``ksize`` is odd. By default the convolution
    has no bias, since normalization would take it off again.
    """

    def __init__(self, in_channels, out_channels, ksize, stride=1, nobias=True, initial_gamma=1):
        super().__init__()
        he = chainer.initializers.HeNormal()
        with self.init_scope():
            self.conv = links.Convolution2D(
                in_channels, out_channels, ksize, stride, ksize // 2, nobias, initialW=he
            )
            self.bn = links.BatchNormalization(out_channels, initial_gamma=initial_gamma)

    def forward(self, x):
        """Returns the normalized features."""
        return self.bn(self.conv(x))


class IdentityShortcut(chainer.Link):
    """The shortcut without parameters: option A of He et al. (2016a), section 3.3.

    It takes every ``stride``-th pixel, both ways, and pads new channels with zeros.
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
    """Returns option B: a 1×1 convolution where the shape changes, or else the identity."""
    if stride == 1 and in_channels == out_channels:
        return IdentityShortcut(in_channels, out_channels, stride)
    return ConvBN(in_channels, out_channels, 1, stride)


class BasicBlock(chainer.Chain):
    """Two 3×3 convolutions beside a shortcut, and ReLU after the sum: He et al. (2016a), figure 5.

    ``shortcut`` makes the shortcut from the three arguments before it. The stride is in the first
    convolution, or else in the second.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        stride,
        shortcut=projection_shortcut,
        zero_init_residual=False,
        stride_in_second=False,
    ):
        super().__init__()
        last_gamma = 0 if zero_init_residual else 1
        first, second = (1, stride) if stride_in_second else (stride, 1)
        with self.init_scope():
            self.conv1 = ConvBN(in_channels, out_channels, 3, first)
            self.conv2 = ConvBN(out_channels, out_channels, 3, second, initial_gamma=last_gamma)
            self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x):
        """Returns the block's features."""
        h = functions.relu(self.conv1(x))
        return functions.relu(self.conv2(h) + self.shortcut(x))


class Bottleneck(chainer.Chain):
    """1×1, 3×3 and 1×1 convolutions beside a projection shortcut, and ReLU after the sum.

    He et al. (2016a), figure 5, right. The first two convolutions have a quarter of the output's
    channels, which must be a multiple of four.
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

    He et al. (2016b), figure 4(e) and the appendix. Where the shape changes, the shortcut is a 1×1
    convolution of the block's first activation, or else the identity.
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


_ZHAO_BLOCK = functools.partial(BasicBlock, stride_in_second=True)
_ZHAO_FIRST = {'shortcut': lambda *shape: ConvBN(shape[0], shape[1], 1, shape[2])}
# He et al. (2016a), table 1: the block, and how many a stage has.
_IMAGENET_BLOCKS = {18: (BasicBlock, (2, 2, 2, 2)), 50: (Bottleneck, (3, 4, 6, 3))}
