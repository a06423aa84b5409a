"""The residual networks for ImageNet: He et al. (2016), section 4.1."""

import functools

from experiments.models.resnet_blocks import BasicBlock, Bottleneck, ConvBN, stage

import chainer
from chainer import functions, links

# He et al. (2016), table 1: the block, and how many a stage has.
_BLOCKS = {18: (BasicBlock, (2, 2, 2, 2)), 50: (Bottleneck, (3, 4, 6, 3))}


class ImageNetResNet(chainer.Chain):
    """ResNet-18 and -50, for images of about 224×224.

    He et al. (2016): *Deep Residual Learning for Image Recognition*, section 4.1 and table 1. A 7×7
    convolution and a max pooling, both of stride 2; four stages, whose shortcuts are 1×1
    convolutions where the shape changes (option B); the average over the image; a linear
    classifier. It computes in the dtype that Chainer is configured for when it is built.

    Args:
        depth (int): 18 or 50.
        classes (int): Number of classes.
        in_channels (int): Channels of the images.
        zero_init_residual (bool): Whether the last gamma of every block starts at zero, so that the
            block starts as its shortcut and ReLU (Goyal et al., 2017, section 5.1).
        stride_in_3x3 (bool): Whether in a block of ResNet-50 that halves the size the 3×3
            convolution does so, as in Goyal et al. (2017), whose accuracies are for this variant
            (also known as v1.5), and not the 1×1 before it, as in He et al. (2016). Both have the
            same parameters. In ResNet-18 it is a 3×3 convolution in any case.

    Raises:
        ValueError: If there is no such network of this depth.
    """

    def __init__(
        self, depth, classes, in_channels=3, zero_init_residual=False, stride_in_3x3=False
    ):
        super().__init__()
        if depth not in _BLOCKS:
            allowed = ' or '.join(map(str, _BLOCKS))
            raise ValueError(f'depth: given {depth}, allowed: {allowed}')
        kind, repeats = _BLOCKS[depth]
        block = functools.partial(kind, zero_init_residual=zero_init_residual)
        widths = (64, 128, 256, 512)
        if kind is Bottleneck:
            block = functools.partial(block, stride_in_3x3=stride_in_3x3)
            widths = tuple(4 * width for width in widths)
        with self.init_scope():
            self.conv1 = ConvBN(in_channels, 64, 7, stride=2)
            self.stage1 = stage(block, repeats[0], 64, widths[0], stride=1)
            self.stage2 = stage(block, repeats[1], widths[0], widths[1], stride=2)
            self.stage3 = stage(block, repeats[2], widths[1], widths[2], stride=2)
            self.stage4 = stage(block, repeats[3], widths[2], widths[3], stride=2)
            self.fc = links.Linear(widths[3], classes, initialW=chainer.initializers.HeNormal())

    def forward(self, x):
        """Returns the logits of a batch of images (n, channels, h, w)."""
        h = functions.relu(self.conv1(x))
        h = functions.max_pooling_2d(h, 3, stride=2, pad=1, cover_all=False)
        h = self.stage4(self.stage3(self.stage2(self.stage1(h))))
        return self.fc(functions.mean(h, axis=(2, 3)))
