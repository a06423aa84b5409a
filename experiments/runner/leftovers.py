"""What Chainer's optimizers leave out of a snapshot."""

import chainerlp
from chainerlp import master_weights

from chainer import training


class Leftovers(training.Extension):
    """Trainer extension that does nothing but save and load.

    Chainer's optimizers in float32 forget their copies of float16 parameters, and dynamic loss
    scaling its scale. :class:`~chainerlp.AdaptiveLossScaling` takes care of itself.

    Args:
        optimizer (~chainer.GradientMethod): The optimizer that the run trains with.
    """

    trigger = (1, 'iteration')

    def __init__(self, optimizer):
        self._optimizer = optimizer

    def __call__(self, trainer):
        """Does nothing."""

    def serialize(self, serializer):
        """Saves or loads it."""
        optimizer = self._optimizer
        if isinstance(optimizer, chainerlp.AdaptiveLossScaling):
            return
        master_weights.serialize(serializer['masters'], optimizer.target)
        if optimizer._loss_scaling_is_dynamic:
            optimizer._loss_scale = serializer('loss_scale', float(optimizer._loss_scale))
            optimizer._loss_scaling_isnan_ever = serializer(
                'has_overflowed', bool(optimizer._loss_scaling_isnan_ever)
            )
