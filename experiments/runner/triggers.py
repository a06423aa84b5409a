"""When a run is evaluated, logged and saved."""

import chainerlp  # noqa: F401 -- it lets Chainer be imported

from chainer.training.triggers import IntervalTrigger


class IntervalAndEnd:
    """Fires at every interval, and at the last iteration even if it ends none.

    Args:
        interval (experiments.config.Interval): From one time to the next.
        iterations (int): Iterations of the whole training.
    """

    def __init__(self, interval, iterations):
        if interval.epochs is not None:
            self._interval = IntervalTrigger(interval.epochs, 'epoch')
        else:
            self._interval = IntervalTrigger(interval.iterations, 'iteration')
        self._iterations = iterations

    def __call__(self, trainer):
        """Returns whether this is such an iteration."""
        # The interval keeps count, so it is asked in any case.
        due = self._interval(trainer)
        return due or trainer.updater.iteration >= self._iterations

    def serialize(self, serializer):
        """Saves or loads the interval's state."""
        self._interval.serialize(serializer)
