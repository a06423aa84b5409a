"""A small convolutional network for images."""

import math

from experiments.models.images import channels_of

import chainer
from chainer import functions, links


class SmallCNN(chainer.Chain):
    """Three 3×3 convolutions with ReLU, the last two of stride 2, and a linear classifier.

    It computes in the dtype that Chainer is configured for when it is built.

    Args:
        in_channels (int): Channels of the images.
        classes (int): Number of classes.
        channels (tuple of int): Output channels of the convolutions.
        size (tuple of int): Height and width of the images; ``None``: those of the first batch.
    """

    def __init__(self, in_channels, classes, channels=(32, 64, 64), size=None):
        super().__init__()
        first, second, third = channels
        # The dtype of now: the last layer may not be made before the first batch.
        he = chainer.initializers.HeNormal(dtype=chainer.get_dtype())
        features = size and third * math.prod(-(-side // 4) for side in size)
        with self.init_scope():
            self.conv1 = links.Convolution2D(in_channels, first, 3, pad=1, initialW=he)
            self.conv2 = links.Convolution2D(first, second, 3, 2, pad=1, initialW=he)
            self.conv3 = links.Convolution2D(second, third, 3, 2, pad=1, initialW=he)
            self.fc = links.Linear(features, classes, initialW=he)

    def forward(self, x):
        """Returns the logits of a batch of images (n, channels, h, w)."""
        h = functions.relu(self.conv1(x))
        h = functions.relu(self.conv2(h))
        h = functions.relu(self.conv3(h))
        return self.fc(h)


def build(section, data):
    """Builds a small CNN.

    Args:
        section: The config: ``channels``, three integers.
        data (experiments.data.Data): What it is to be trained on.

    Returns:
        SmallCNN: The model.
    """
    # With the size: many workers would spend their first update on parameters without one.
    in_channels = channels_of(section, data)
    return SmallCNN(in_channels, data.classes, section.channels, data.shape[1:])
