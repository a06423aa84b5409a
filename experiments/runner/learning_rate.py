"""The learning rate, as a function of the iteration."""

import bisect


class LearningRate:
    """Sets an optimizer's rate before an iteration.

    Args:
        optimizer (~chainer.GradientMethod): The optimizer, with the full rate.
        attribute (str): What it calls its rate.
        schedule (experiments.config.Schedule): How it changes.
        pace (experiments.runner.length.Pace): How fast epochs go by.
    """

    def __init__(self, optimizer, attribute, schedule, pace):
        self._optimizer = optimizer
        self._attribute = attribute
        self._full = getattr(optimizer, attribute)
        self._schedule = schedule
        self._pace = pace

    def __call__(self, iteration):
        """Sets it.

        Args:
            iteration (int): How many iterations are over.
        """
        rate = self._full * factor(self._schedule, self._pace, iteration)
        setattr(self._optimizer, self._attribute, rate)


def factor(schedule, pace, iteration):
    """Returns the rate as a fraction of the full one.

    Args:
        schedule (experiments.config.Schedule): How it changes.
        pace (experiments.runner.length.Pace): How fast epochs go by.
        iteration (int): How many iterations are over.

    Returns:
        float: The product of the warm-up's factor and of the steps that were taken.
    """
    found = 1.0
    step, warmup = schedule.step, schedule.warmup
    if step is not None:
        times = step.iterations or [pace.iterations(epochs) for epochs in step.epochs]
        found *= step.factor ** bisect.bisect_right(times, iteration)
    if warmup is not None:
        end = pace.of(warmup)
        if iteration < end:
            done = iteration / end if warmup.shape == 'linear' else 0.0
            found *= warmup.factor + (1 - warmup.factor) * done
    return found
