"""Schedules: epochs as iterations, when something is due, and the learning rate.

The learning rate, its warm-up and its steps included, is a function of the iteration alone, so that
a snapshot need not hold it.
"""

import bisect
import dataclasses
import math

from chainer.training.triggers import IntervalTrigger


@dataclasses.dataclass(frozen=True)
class Pace:
    """How fast epochs go by on one worker: the examples of an epoch, and those of an iteration."""

    examples: int
    batch_size: int

    def iterations(self, epochs):
        """Returns in which iteration so many epochs end."""
        return math.ceil(epochs * self.examples / self.batch_size)

    def length(self, section):
        """Returns the length of a section with ``epochs`` or ``iterations``, in iterations."""
        return section.iterations if section.epochs is None else self.iterations(section.epochs)


def training_length(section, pace):
    """Returns the iterations of a training, by a config's ``train`` section."""
    iterations = pace.length(section)
    return min(iterations, section.max_iterations or iterations)


class IntervalAndEnd:
    """Fires at every interval, and at the last of all iterations even if it ends none."""

    def __init__(self, interval, iterations):
        unit = 'iteration' if interval.epochs is None else 'epoch'
        self._interval = IntervalTrigger(interval.epochs or interval.iterations, unit)
        self._iterations = iterations

    def __call__(self, trainer):
        """Returns whether this is such an iteration."""
        due = self._interval(trainer)  # it keeps count, so it is asked in any case
        return due or trainer.updater.iteration >= self._iterations

    def serialize(self, serializer):
        """Saves or loads the interval's state."""
        self._interval.serialize(serializer)


class LearningRate:
    """Sets an optimizer's rate before an iteration.

    At first the optimizer must have the full rate, under the name of the attribute; the config's
    ``schedule`` section says how it changes.
    """

    def __init__(self, optimizer, attribute, schedule, pace):
        self._optimizer = optimizer
        self._attribute = attribute
        self._full = getattr(optimizer, attribute)
        self._schedule = schedule
        self._pace = pace

    def __call__(self, iteration):
        """Sets it; ``iteration`` is how many are over."""
        rate = self._full * learning_rate_factor(self._schedule, self._pace, iteration)
        setattr(self._optimizer, self._attribute, rate)


def learning_rate_factor(schedule, pace, iteration):
    """Returns the rate as a fraction of the full one, after so many iterations.

    It is the product of the warm-up's factor and of the steps that were taken.
    """
    found = 1.0
    step, warmup = schedule.step, schedule.warmup
    if step is not None:
        times = step.iterations or [pace.iterations(epochs) for epochs in step.epochs]
        found *= step.factor ** bisect.bisect_right(times, iteration)
    if warmup is not None:
        end = pace.length(warmup)
        if iteration < end:
            done = iteration / end if warmup.shape == 'linear' else 0.0
            found *= warmup.factor + (1 - warmup.factor) * done
    return found
