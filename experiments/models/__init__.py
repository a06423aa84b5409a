"""The models, one file each: from a config's ``model`` section to a link."""

from experiments.models import (
    cnn,
    mlp,
    preactivation_resnet,
    resnet_cifar,
    resnet_imagenet,
    segnet,
    ssd,
    vgg_cifar,
)

_BUILDERS = {
    'cnn': cnn.build,
    'mlp': mlp.build,
    'preactivation_resnet': preactivation_resnet.build,
    'resnet_cifar': resnet_cifar.build,
    'resnet_imagenet': resnet_imagenet.build,
    'segnet': segnet.build,
    'ssd': ssd.build,
    'vgg_cifar': vgg_cifar.build,
}

__all__ = ['build']


def build(section, data):
    """Builds a model for a data set.

    Args:
        section: The ``model`` section of a config.
        data (experiments.data.Data): What it is to be trained on.

    Returns:
        ~chainer.Link: Maps a batch of features to logits (an SSD to where and what its boxes hold),
        in Chainer's configured dtype.

    Raises:
        ConfigError: If the model does not take such data.
    """
    return _BUILDERS[section.name](section, data)
