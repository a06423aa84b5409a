"""The residual networks with pre-activation for CIFAR: He et al. (2016b)."""

from experiments.models.conv_bn import ConvBN
from experiments.models.images import channels_of
from experiments.models.stage import blocks_per_stage, stage

import chainer
from chainer import functions, links


class PreActivationBottleneck(chainer.Chain):
    """1×1, 3×3 and 1×1 convolutions, each after batch normalization and ReLU, beside a shortcut.

    He et al. (2016b): *Identity Mappings in Deep Residual Networks*, figure 4(e) and the appendix.
    Nothing comes after the sum, so that the shortcuts are an identity through a whole stage.
    Where the shape changes, the shortcut is a 1×1 convolution of the block's first activation.

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
        """Returns the features (n, out_channels, h / stride, w / stride)."""
        activation = functions.relu(self.bn(x))
        shortcut = x if self.shortcut is None else self.shortcut(activation)
        h = functions.relu(self.conv1(activation))
        h = functions.relu(self.conv2(h))
        return self.conv3(h) + shortcut


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
        blocks = blocks_per_stage(depth, layers=3, known='164')
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


def build(section, data):
    """Builds a residual network with pre-activation.

    Args:
        section: The config: ``depth``.
        data (experiments.data.Data): What it is to be trained on.

    Returns:
        PreActivationResNet: The model.
    """
    return PreActivationResNet(section.depth, data.classes, channels_of(section, data))
