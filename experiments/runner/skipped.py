"""Counting the updates that an optimizer skips because a gradient is not finite."""

import chainerlp  # noqa: F401 -- it lets Chainer be imported

from chainer import training


class SkippedUpdates(training.Extension):
    """Trainer extension that counts skipped updates, of Chainer's optimizers and of the wrapper.

    Chainer's optimizers skip updates only with dynamic loss scaling; they say so after each update,
    but keep no count.

    Attributes:
        count (int): Updates skipped so far.
    """

    trigger = (1, 'iteration')
    priority = training.PRIORITY_READER

    def __init__(self):
        self.count = 0

    def __call__(self, trainer):
        """Looks at the latest update."""
        optimizer = trainer.updater.get_optimizer('main')
        if isinstance(optimizer, chainerlp.AdaptiveLossScaling):
            self.count = optimizer.skipped
        elif optimizer.t > 0 and not optimizer.is_safe_to_update():
            # Before its first update it could not say: ChainerMN spends one on the parameters.
            self.count += 1

    def serialize(self, serializer):
        """Saves or loads the count."""
        self.count = int(serializer('count', self.count))
