"""VGG-16 for CIFAR, with batch normalization."""

from experiments.models.conv_bn import ConvBN
from experiments.models.images import channels_of

import chainer
from chainer import functions, links

# Simonyan and Zisserman (2015), table 1, column D: channels and number of convolutions of a block.
_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class CIFARVGG16(chainer.Chain):
    """The 13 convolutions of VGG-16, each with batch normalization and ReLU, and one linear layer.

    Simonyan and Zisserman (2015): *Very Deep Convolutional Networks for Large-Scale Image
    Recognition*, configuration D, its convolutions ``conv1_1`` to ``conv5_3`` with their biases.
    The five poolings leave one pixel of a 32×32 image, so one layer of 512 to ``classes`` takes the
    place of the paper's three. Larger images are averaged to one pixel. It computes in the dtype
    that Chainer is configured for when it is built.

    Args:
        classes (int): Number of classes.
        in_channels (int): Channels of the images.
        dropout (float): Share of the features that is dropped before the linear layer.
    """

    def __init__(self, classes, in_channels=3, dropout=0.0):
        super().__init__()
        self.dropout = dropout
        self._blocks = []
        with self.init_scope():
            for block, (channels, convolutions) in enumerate(_BLOCKS, 1):
                names = [f'conv{block}_{index}' for index in range(1, convolutions + 1)]
                for name in names:
                    setattr(self, name, ConvBN(in_channels, channels, 3, nobias=False))
                    in_channels = channels
                self._blocks.append(names)
            self.fc = links.Linear(in_channels, classes, initialW=chainer.initializers.HeNormal())

    def forward(self, x):
        """Returns the logits of a batch of images (n, channels, h, w)."""
        h = x
        for names in self._blocks:
            for name in names:
                h = functions.relu(self[name](h))
            h = functions.max_pooling_2d(h, 2)
        h = functions.mean(h, axis=(2, 3))
        if self.dropout > 0:
            h = functions.dropout(h, self.dropout)
        return self.fc(h)


def build(section, data):
    """Builds VGG-16 for CIFAR.

    Args:
        section: The config: ``dropout``.
        data (experiments.data.Data): What it is to be trained on.

    Returns:
        CIFARVGG16: The model.
    """
    return CIFARVGG16(data.classes, channels_of(section, data), section.dropout)
