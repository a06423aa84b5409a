"""VGG-16 without its classifier, its two large linear layers turned into convolutions.

Simonyan and Zisserman 2014 (arXiv 1409.1556), as SSD has it (Liu et al. 2016, arXiv 1512.02325,
section 3): pool5 is 3x3 with stride 1 instead of 2x2 with stride 2, fc6 a dilated 3x3 convolution,
fc7 a 1x1 one, and there is no dropout.
"""

from experiments.models.channels import scaled

import chainer
from chainer import functions, links

# Channels of the 3x3 convolutions, one tuple for each size of the feature map.
_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_FC_CHANNELS = 1024


class VGG16Trunk(chainer.Chain):
    """The convolutions of VGG-16: ``conv1_1`` to ``conv5_3``, ``fc6`` and ``fc7``.

    It computes in the dtype that Chainer is configured for when it is built. Weights after He et
    al. (2015), biases 0; :func:`~experiments.models.vgg16_weights.load` sets trained ones.

    Args:
        width (float): Factor on all numbers of channels.

    Attributes:
        conv4_3_channels (int): Channels of the first output.
        fc7_channels (int): Channels of the second output.
    """

    def __init__(self, width=1.0):
        super().__init__()
        he = chainer.initializers.HeNormal()
        channels = 3
        with self.init_scope():
            for names, sizes in zip(self._blocks(), _BLOCKS):
                for name, size in zip(names, sizes):
                    size = scaled(size, width)
                    conv = links.Convolution2D(channels, size, 3, pad=1, initialW=he)
                    setattr(self, name, conv)
                    channels = size
            size = scaled(_FC_CHANNELS, width)
            self.fc6 = links.Convolution2D(channels, size, 3, pad=6, dilate=6, initialW=he)
            self.fc7 = links.Convolution2D(size, size, 1, initialW=he)
        self.conv4_3_channels = self.conv4_3.out_channels
        self.fc7_channels = size

    @property
    def conv_names(self):
        """Names of the 3x3 convolutions, from input to output."""
        return [name for names in self._blocks() for name in names]

    def forward(self, x):
        """Returns the two feature maps that boxes are found on.

        Args:
            x (~chainer.Variable): Images (n, 3, h, w), in the dtype of the weights.

        Returns:
            tuple: What ReLU leaves of conv4_3, (n, channels, h / 8, w / 8), and of fc7,
            (n, channels, h / 16, w / 16); sizes are rounded up.
        """
        h = x
        for number, names in enumerate(self._blocks(), 1):
            for name in names:
                h = functions.relu(self[name](h))
            if number == 4:
                conv4_3 = h
            if number < 5:
                h = functions.max_pooling_2d(h, 2, 2)
        h = functions.max_pooling_2d(h, 3, 1, pad=1)
        h = functions.relu(self.fc6(h))
        return conv4_3, functions.relu(self.fc7(h))

    @staticmethod
    def _blocks():
        return [
            [f'conv{block}_{layer}' for layer in range(1, len(sizes) + 1)]
            for block, sizes in enumerate(_BLOCKS, 1)
        ]
