"""Chainer's optimizers: from a config's ``optimizer`` section to a gradient method."""

import chainerlp  # noqa: F401 -- it lets Chainer be imported

from chainer import optimizer_hooks, optimizers

_CLASSES = {
    'sgd': optimizers.SGD,
    'momentum_sgd': optimizers.MomentumSGD,
    'adam': optimizers.Adam,
}
_OF_ALL = {'name', 'weight_decay'}


def build(section):
    """Builds an optimizer.

    Args:
        section: The ``optimizer`` section of a config; its other keys are the class's arguments.

    Returns:
        ~chainer.GradientMethod: The optimizer, not yet set up.
    """
    return _CLASSES[section.name](**section.model_dump(exclude=_OF_ALL))


def rate_of(section):
    """Returns what an optimizer calls its learning rate: the attribute that a schedule sets."""
    return 'alpha' if section.name == 'adam' else 'lr'


def add_weight_decay(optimizer, section):
    """Lets an optimizer that is set up decay all parameters, in float32 whatever their dtype.

    Args:
        optimizer (~chainer.GradientMethod or ~chainerlp.AdaptiveLossScaling): The optimizer.
        section: The ``optimizer`` section of a config.
    """
    if section.weight_decay:
        decay = _DecayOfTrue(section.weight_decay)
        for param in optimizer.target.params():
            param.update_rule.add_hook(decay)


class _DecayOfTrue(optimizer_hooks.WeightDecay):
    """Chainer's, for update rules: on the float32 copy of a parameter and its true gradient.

    Added to an optimizer, it would add to a gradient that is still scaled and in float16.
    """

    def __call__(self, rule, param):
        # Of a float32 parameter too the rule has divided the gradient already, but the scale is
        # still there, and Chainer's hook would multiply by it.
        scale, param._loss_scale = param._loss_scale, None
        try:
            super().__call__(rule, param)
        finally:
            param._loss_scale = scale
