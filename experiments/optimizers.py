"""Chainer's optimizers: from a config's ``optimizer`` section to a gradient method."""

import chainerlp  # noqa: F401 -- it lets Chainer be imported

from chainer import optimizers

_CLASSES = {
    'sgd': optimizers.SGD,
    'momentum_sgd': optimizers.MomentumSGD,
    'adam': optimizers.Adam,
}


def build(section):
    """Builds an optimizer.

    Args:
        section: The ``optimizer`` section of a config; its other keys are the class's arguments.

    Returns:
        ~chainer.GradientMethod: The optimizer, not yet set up.
    """
    return _CLASSES[section.name](**section.model_dump(exclude={'name'}))
