"""How fast the data comes."""

import time

import chainerlp  # noqa: F401 -- it lets Chainer be imported

from chainer import reporter, training
from chainer.training import get_trigger

# Like Chainer's `elapsed_time`, these entries of a log depend on the machine: whoever compares the
# logs of two runs has to leave them out.
KEYS = ('data/images_per_sec', 'data/wait')


class Throughput(training.Extension):
    """Trainer extension that reports how fast examples are trained on, and what the data costs.

    At its interval it reports, since the last time,

    - ``data/images_per_sec``: examples trained on in a second, by this process;
    - ``data/wait``: the share of that time in which the training waited for examples to be loaded,
      0 to 1. Near 0 the model is what takes the time; near 1 more workers would help. A GPU that
      still has work queued is not idle while the training waits.

    Only updates are timed, from asking for a batch to the end of the update: evaluating and
    reporting are not in it. Nothing of it is saved; a resumed run measures anew.

    Args:
        batches (~experiments.data.batches.Batches): What the training reads.
        interval: When it reports: a trigger as :func:`chainer.training.get_trigger` takes it. It
            should be the one of the ``LogReport``, which takes the mean of what was reported.
    """

    trigger = (1, 'iteration')
    # Before all else that an iteration runs: what they do is not part of the update.
    priority = training.PRIORITY_WRITER + 100

    def __init__(self, batches, interval):
        self._batches = batches
        self._interval = get_trigger(interval)
        self._begin()

    def _begin(self):
        self._seconds = 0.0
        self._examples = self._batches.examples
        self._waited = self._batches.waited

    def initialize(self, trainer):
        """Begins to measure."""
        self._begin()

    def __call__(self, trainer):
        """Looks at the clock after an update; reports when it is due."""
        self._seconds += time.perf_counter() - self._batches.asked
        if self._interval(trainer):
            examples = self._batches.examples - self._examples
            waited = self._batches.waited - self._waited
            values = (examples / self._seconds, waited / self._seconds)
            reporter.report(dict(zip(KEYS, values)))
            self._begin()

    def serialize(self, serializer):
        """Saves or loads the interval's state."""
        if hasattr(self._interval, 'serialize'):
            self._interval.serialize(serializer)
