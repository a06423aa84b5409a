"""What the models for images ask of a data set."""

from experiments.errors import ConfigError


def channels_of(section, data):
    """Returns the number of channels of a data set's images.

    Args:
        section: The ``model`` section of a config, of a model for images.
        data (experiments.data.Data): What it is to be trained on.

    Raises:
        ConfigError: If its examples are not images.
    """
    if len(data.shape) != 3:
        raise ConfigError(
            f'model.name: given {section.name}, which takes images (channels, height, width), but'
            f' the data set has examples of shape {tuple(data.shape)}, allowed for them: mlp'
        )
    return data.shape[0]
