"""The models: from a config's ``model`` section to a link.

All compute in the dtype that Chainer is configured for when they are built.
"""

import math

from experiments.config.errors import ConfigError
from experiments.models.resnet import CIFARResNet, ImageNetResNet, PreActivationResNet
from experiments.models.segnet import SegNetBasic
from experiments.models.small_models import MLP, DeepCNN, SmallCNN
from experiments.models.ssd import PIXEL_SCALE, SSD
from experiments.models.transformer import Transformer
from experiments.models.vgg import CIFARVGG16, load_weights

__all__ = ['build']

# The first takes any shape; the last is for a task of its own, of which all data are text.
_NOT_FOR_IMAGES = ('mlp', 'transformer')


def build(section, data):
    """Builds a model for a data set.

    Args:
        section: The ``model`` section of a config.
        data (experiments.data.Data): The data set that it is to be trained on.

    Returns:
        ~chainer.Link: Maps a batch of features to logits (an SSD to where and what its boxes hold),
        in Chainer's configured dtype.

    Raises:
        ConfigError: If the model does not take such data.
    """
    if section.name not in _NOT_FOR_IMAGES and len(data.shape) != 3:
        raise ConfigError(
            f'model.name: given {section.name}, which takes images (channels, height, width), but'
            f' the data set has examples of shape {tuple(data.shape)}, allowed for them: mlp'
        )
    return _BUILDERS[section.name](section, data)


def _ssd(section, data):
    shape = data.classes, section.size, section.width
    if section.pretrained is None:
        return SSD(*shape, PIXEL_SCALE, section.scaled_cast)
    model = SSD(*shape, scaled_cast=section.scaled_cast)
    load_weights(section.pretrained, model.trunk)
    return model


_BUILDERS = {
    'mlp': lambda section, data: MLP(
        math.prod(data.shape), section.units, data.classes, section.layers, section.activation
    ),
    # With the size: many workers would spend their first update on parameters without one.
    'cnn': lambda section, data: SmallCNN(
        data.shape[0], data.classes, section.channels, data.shape[1:]
    ),
    'deep_cnn': lambda section, data: DeepCNN(
        data.shape[0], data.classes, section.batch_normalization
    ),
    'resnet_cifar': lambda section, data: CIFARResNet(
        section.depth, data.classes, data.shape[0], section.variant
    ),
    'preactivation_resnet': lambda section, data: PreActivationResNet(
        section.depth, data.classes, data.shape[0]
    ),
    'vgg_cifar': lambda section, data: CIFARVGG16(
        data.classes, data.shape[0], section.dropout, section.batch_normalization
    ),
    'resnet_imagenet': lambda section, data: ImageNetResNet(
        section.depth,
        data.classes,
        data.shape[0],
        section.zero_init_residual,
        section.stride_in_3x3,
        section.variant,
    ),
    'segnet': lambda section, data: SegNetBasic(
        data.classes, section.channels, section.scaled_cast
    ),
    'ssd': _ssd,
    'transformer': lambda section, data: Transformer(
        data.classes, data.shape[0], section.layers, section.units, section.heads
    ),
}
