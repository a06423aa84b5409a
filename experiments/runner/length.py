"""Lengths: from epochs to iterations."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Pace:
    """How fast epochs go by on one worker.

    Attributes:
        examples (int): Examples of an epoch.
        batch_size (int): Examples of an iteration.
    """

    examples: int
    batch_size: int

    def iterations(self, epochs):
        """Returns in which iteration so many epochs end."""
        return math.ceil(epochs * self.examples / self.batch_size)

    def of(self, section):
        """Returns the length of a section with ``epochs`` or ``iterations``, in iterations."""
        return section.iterations if section.epochs is None else self.iterations(section.epochs)


def of_training(section, pace):
    """Returns the iterations of a training.

    Args:
        section (experiments.config.Train): The config.
        pace (Pace): How fast epochs go by.
    """
    iterations = pace.of(section)
    return min(iterations, section.max_iterations or iterations)
