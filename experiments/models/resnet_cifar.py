"""The residual networks for CIFAR, with activation after the sum or before the convolutions."""

import functools

from experiments.models.resnet_blocks import (
    BasicBlock,
    ConvBN,
    IdentityShortcut,
    PreActivationBottleneck,
    stage,
)

import chainer
from chainer import functions, links


class CIFARResNet(chainer.Chain):
    """ResNet-20, -56, -110 and every other of depth 6n + 2, for images of about 32×32.

    He et al. (2016): *Deep Residual Learning for Image Recognition*, section 4.2. A 3×3 convolution
    of 16 channels; three stages of n blocks with 16, 32 and 64 channels, whose shortcuts have no
    parameters (option A); the average over the image; a linear classifier. It computes in the
    dtype that Chainer is configured for when it is built.

    Args:
        depth (int): Number of layers with weights.
        classes (int): Number of classes.
        in_channels (int): Channels of the images.

    Raises:
        ValueError: If there is no such network of this depth.
    """

    def __init__(self, depth, classes, in_channels=3):
        super().__init__()
        blocks = _blocks_per_stage(depth, layers=2, known='20, 56 or 110')
        block = functools.partial(BasicBlock, shortcut=IdentityShortcut)
        with self.init_scope():
            self.conv1 = ConvBN(in_channels, 16, 3)
            self.stage1 = stage(block, blocks, 16, 16, stride=1)
            self.stage2 = stage(block, blocks, 16, 32, stride=2)
            self.stage3 = stage(block, blocks, 32, 64, stride=2)
            self.fc = links.Linear(64, classes, initialW=chainer.initializers.HeNormal())

    def forward(self, x):
        """Returns the logits of a batch of images (n, channels, h, w)."""
        h = functions.relu(self.conv1(x))
        h = self.stage3(self.stage2(self.stage1(h)))
        return self.fc(functions.mean(h, axis=(2, 3)))


class PreActivationResNet(chainer.Chain):
    """ResNet-164 v2 and every other of depth 9n + 2, for images of about 32×32.

    He et al. (2016b): *Identity Mappings in Deep Residual Networks*. A 3×3 convolution of 16
    channels; three stages of n bottlenecks with 64, 128 and 256 channels; batch normalization and
    ReLU; the average over the image; a linear classifier. It computes in the dtype that Chainer is
    configured for when it is built.

    Args:
        depth (int): Number of layers with weights, shortcuts not counted.
        classes (int): Number of classes.
        in_channels (int): Channels of the images.

    Raises:
        ValueError: If there is no such network of this depth.
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


def _blocks_per_stage(depth, layers, known):
    """Returns n, where three stages of n blocks, the first layer and the last make up a depth."""
    blocks, rest = divmod(depth - 2, 3 * layers)
    if rest or blocks < 1:
        raise ValueError(f'depth: given {depth}, allowed: {3 * layers}n + 2, such as {known}')
    return blocks
