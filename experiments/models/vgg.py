"""VGG-16: with batch normalization for CIFAR, and as the trunk of SSD.

Simonyan and Zisserman 2014 (arXiv 1409.1556), configuration D.
"""

from experiments.models.resnet import ConvBN

import chainer
from chainer import functions, links

# Channels of the 3x3 convolutions, one tuple for each size of the feature map, and their names.
_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_BLOCK_NAMES = [
    [f'conv{block}_{layer}' for layer in range(1, len(sizes) + 1)]
    for block, sizes in enumerate(_BLOCKS, 1)
]
_FC_CHANNELS = 1024


class CIFARVGG16(chainer.Chain):
    """The 13 convolutions of VGG-16, each with batch normalization and ReLU, and one linear layer.

    The convolutions ``conv1_1`` to ``conv5_3`` have their biases. The five poolings leave one pixel
    of a 32×32 image, so one layer of 512 to ``classes`` takes the place of the paper's three.
    Larger images are averaged to one pixel.

    Args:
        classes (int): Number of classes.
        in_channels (int): Channels of the images.
        dropout (float): Share of the features that is dropped before the linear layer.
    """

    def __init__(self, classes, in_channels=3, dropout=0.0):
        super().__init__()
        self.dropout = dropout
        with self.init_scope():
            for names, sizes in zip(_BLOCK_NAMES, _BLOCKS):
                for name, channels in zip(names, sizes):
                    setattr(self, name, ConvBN(in_channels, channels, 3, nobias=False))
                    in_channels = channels
            self.fc = links.Linear(in_channels, classes, initialW=chainer.initializers.HeNormal())

    def forward(self, x):
        """Returns the logits of a batch of images (n, channels, h, w)."""
        h = x
        for names in _BLOCK_NAMES:
            for name in names:
                h = functions.relu(self[name](h))
            h = functions.max_pooling_2d(h, 2)
        h = functions.mean(h, axis=(2, 3))
        if self.dropout > 0:
            h = functions.dropout(h, self.dropout)
        return self.fc(h)


class VGG16Trunk(chainer.Chain):
    """The convolutions ``conv1_1`` to ``conv5_3``, ``fc6`` and ``fc7`` of VGG-16, as SSD has them.

    Liu et al. 2016 (arXiv 1512.02325), section 3: there is no classifier and no dropout; pool5 is
    3x3 with stride 1 instead of 2x2 with stride 2; fc6 is a dilated 3x3 convolution, fc7 a 1x1 one.
    Weights after He et al. (2015), biases 0; :func:`~experiments.models.vgg16_weights.load` sets
    trained ones. ``width`` is a factor on all numbers of channels.
    """

    def __init__(self, width=1.0):
        super().__init__()
        he = chainer.initializers.HeNormal()
        channels = 3
        with self.init_scope():
            for names, sizes in zip(_BLOCK_NAMES, _BLOCKS):
                for name, size in zip(names, sizes):
                    size = scale_channels(size, width)
                    conv = links.Convolution2D(channels, size, 3, pad=1, initialW=he)
                    setattr(self, name, conv)
                    channels = size
            size = scale_channels(_FC_CHANNELS, width)
            self.fc6 = links.Convolution2D(channels, size, 3, pad=6, dilate=6, initialW=he)
            self.fc7 = links.Convolution2D(size, size, 1, initialW=he)

    @property
    def conv_names(self):
        """List of str: Names of the 3x3 convolutions, from input to output."""
        return sum(_BLOCK_NAMES, [])

    def forward(self, x):
        """Returns the two feature maps that boxes are found on.

        Args:
            x (~chainer.Variable): Images (n, 3, h, w), in the dtype of the weights.

        Returns:
            tuple: The activations of conv4_3, (n, channels, h / 8, w / 8), and of fc7,
            (n, channels, h / 16, w / 16); sizes are rounded up.
        """
        h = x
        for number, names in enumerate(_BLOCK_NAMES, 1):
            for name in names:
                h = functions.relu(self[name](h))
            if number == 4:
                conv4_3 = h
            if number < 5:
                h = functions.max_pooling_2d(h, 2, 2)
        h = functions.max_pooling_2d(h, 3, 1, pad=1)
        h = functions.relu(self.fc6(h))
        return conv4_3, functions.relu(self.fc7(h))


def scale_channels(channels, width):
    """Returns a number of channels times a width factor, rounded, at least 1."""
    return max(1, round(channels * width))
