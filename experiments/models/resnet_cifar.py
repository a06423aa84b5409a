"""The residual networks for CIFAR: He et al. (2016), section 4.2."""

import functools

from experiments.models.basic_block import BasicBlock
from experiments.models.conv_bn import ConvBN
from experiments.models.images import channels_of
from experiments.models.shortcuts import PaddedIdentity
from experiments.models.stage import blocks_per_stage, stage

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
        blocks = blocks_per_stage(depth, layers=2, known='20, 56 or 110')
        block = functools.partial(BasicBlock, shortcut=PaddedIdentity)
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


def build(section, data):
    """Builds a residual network for CIFAR.

    Args:
        section: The config: ``depth``.
        data (experiments.data.Data): What it is to be trained on.

    Returns:
        CIFARResNet: The model.
    """
    return CIFARResNet(section.depth, data.classes, channels_of(section, data))
