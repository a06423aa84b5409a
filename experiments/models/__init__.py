"""The models, one file each: from a config's ``model`` section to a link."""

from experiments.models import mlp

_BUILDERS = {'mlp': mlp.build}

__all__ = ['build']


def build(section, data):
    """Builds a model for a data set.

    Args:
        section: The ``model`` section of a config.
        data (experiments.datasets.Data): What it is to be trained on.

    Returns:
        ~chainer.Link: Maps a batch of features to logits, in Chainer's configured dtype.
    """
    return _BUILDERS[section.name](section, data)
