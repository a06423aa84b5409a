"""When a run is evaluated, logged and saved."""

import chainerlp  # noqa: F401 -- it lets Chainer be imported

from chainer.training.triggers import IntervalTrigger


class AtEnd:
    """Fires at the last iteration.

    Args:
        iterations (int): Iterations of the whole training.
    """

    def __init__(self, iterations):
        self._iterations = iterations

    def __call__(self, trainer):
        """Returns whether this iteration is the last."""
        return trainer.updater.iteration >= self._iterations


class EpochsAndEnd:
    """Fires every so many epochs, and at the last iteration even if it ends no epoch.

    Args:
        epochs (int): Epochs from one time to the next.
        iterations (int): Iterations of the whole training.
    """

    def __init__(self, epochs, iterations):
        self._epochs = IntervalTrigger(epochs, 'epoch')
        self._end = AtEnd(iterations)

    def __call__(self, trainer):
        """Returns whether this is such an iteration."""
        # The interval keeps count, so it is asked in any case.
        due = self._epochs(trainer)
        return due or self._end(trainer)

    def serialize(self, serializer):
        """Saves or loads the interval's state."""
        self._epochs.serialize(serializer)
