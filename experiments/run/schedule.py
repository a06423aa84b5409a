"""Schedules: epochs as iterations, when something is due, and the learning rate."""

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


class IntervalAndEnd(IntervalTrigger):
    """Fires at every interval, and at a trainer's last iteration even if it ends none.

    The length of the trainer must be in iterations.
    """

    def __init__(self, interval):
        unit = 'iteration' if interval.epochs is None else 'epoch'
        super().__init__(interval.epochs or interval.iterations, unit)

    def __call__(self, trainer):
        """Returns whether this is such an iteration."""
        due = super().__call__(trainer)  # it keeps count, so it is asked in any case
        return due or trainer.updater.iteration >= trainer.stop_trigger.period


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
