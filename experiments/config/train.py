"""How long is trained, and what is done meanwhile."""

from typing import Optional

from experiments.config.section import Count, InOneUnit, Interval, Section


class Train(InOneUnit):
    """How long, and in which steps."""

    batch_size: Count
    epochs: Optional[Count] = None
    """Length of the training; either this or iterations."""
    iterations: Optional[Count] = None
    """Length of the training; either this or epochs."""
    max_iterations: Optional[Count] = None
    """Stops after so many iterations even if the epochs are not over."""
    evaluate: Interval = Interval(epochs=1)
    """Between two evaluations on the test set, each an entry in the log; the last iteration is
    followed by one in any case."""
    snapshot: Interval = Interval(epochs=1)
    """Between two snapshots; the last iteration is followed by one in any case."""


class Report(Section):
    """What is measured during training."""

    interval: Count = 1
    """Iterations between two measurements of underflow."""
