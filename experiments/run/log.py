"""What a run notes on its way: Chainer's log, the throughput, and the skipped updates."""

import contextlib
import json
import os
import time

import chainerlp
from chainerlp.extensions.files import write_text
from experiments.reports.run_files import LOG

from chainer import reporter, training
from chainer.training import extensions, get_trigger

# Like Chainer's `elapsed_time`, these entries of a log depend on the machine: whoever compares the
# logs of two runs has to leave them out.
THROUGHPUT_KEYS = ('data/images_per_sec', 'data/wait')
# What is an extreme, or a count so far, has no mean: from what an entry had and a new value.
_NO_MEANS = {
    'scaling/scale_min': min,
    'scaling/scale_max': max,
    'scaling/total_scale_max': max,
    **dict.fromkeys(
        ('scaling/skipped', 'scaling/saturated', 'scaling/backoff'), lambda _, newest: newest
    ),
}


class Log(extensions.LogReport):
    """Chainer's ``LogReport``, but for the writing of its file, and for what has no mean.

    Chainer's writes into a temporary folder, which stays behind if it is killed, and does not wait
    for the disk. An entry here has the smallest ``scaling/scale_min`` and the largest
    ``scaling/scale_max`` and ``scaling/total_scale_max`` since the one before, and the newest
    ``scaling/skipped``, ``scaling/saturated`` and ``scaling/backoff``.
    """

    default_name = 'LogReport'

    def __init__(self, trigger):
        super().__init__(trigger=trigger, log_name=None, postprocess=self._replace_means)
        self._kept = {}  # by key, since the last entry

    def initialize(self, trainer):
        """Writes the file as the snapshot has it, if the training goes on from one."""
        if self.log:
            self._write(trainer)

    def __call__(self, trainer):
        """Takes note of the iteration, and writes the file if there is a new entry."""
        for key in _NO_MEANS.keys() & trainer.observation.keys():
            value = float(trainer.observation[key])
            self._kept[key] = _NO_MEANS[key](self._kept.get(key, value), value)
        entries = len(self.log)
        super().__call__(trainer)
        if len(self.log) > entries:
            self._write(trainer)

    def _write(self, trainer):
        write_text(os.path.join(trainer.out, LOG), json.dumps(self.log, indent=4))

    def serialize(self, serializer):
        """Saves or loads the log, and what is kept for its next entry."""
        super().serialize(serializer)
        with contextlib.suppress(KeyError):  # a snapshot of before this was kept
            self._kept = json.loads(str(serializer('_kept', json.dumps(self._kept))))

    def _replace_means(self, entry):
        entry.update(self._kept)
        self._kept = {}


class SkippedUpdates(training.Extension):
    """Trainer extension that counts the updates skipped because a gradient is not finite.

    :class:`~chainerlp.AdaptiveLossScaling` counts them itself, on a GPU on the device, so it is
    asked only when the count is read. Chainer's optimizers skip updates only with dynamic loss
    scaling; they tell after each update, but keep no count.
    """

    trigger = (1, 'iteration')
    priority = training.PRIORITY_READER

    def __init__(self, optimizer):
        self._optimizer = optimizer
        self._counts_itself = isinstance(optimizer, chainerlp.AdaptiveLossScaling)
        self._count = 0

    @property
    def count(self):
        """int: Updates skipped so far."""
        return self._optimizer.skipped if self._counts_itself else self._count

    def __call__(self, trainer):
        """Looks at the latest update."""
        # Before its first update it could not say: ChainerMN spends one on the parameters.
        if not self._counts_itself and self._optimizer.t > 0:
            self._count += not self._optimizer.is_safe_to_update()

    def serialize(self, serializer):
        """Saves or loads the count."""
        self._count = int(serializer('count', self.count))


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
        interval: A trigger, that of the ``LogReport``, which takes the mean of what was reported.
    """

    trigger = (1, 'iteration')
    # Before all else that an iteration runs: what they do is not part of the update.
    priority = training.PRIORITY_WRITER + 100

    def __init__(self, batches, interval):
        self._batches = batches
        self._interval = get_trigger(interval)

    def initialize(self, trainer):
        """Begins to measure."""
        self._seconds = 0.0
        self._examples = self._batches.examples
        self._waited = self._batches.waited

    def __call__(self, trainer):
        """Looks at the clock after an update; reports when it is due."""
        self._seconds += time.perf_counter() - self._batches.asked
        if self._interval(trainer):
            examples = self._batches.examples - self._examples
            waited = self._batches.waited - self._waited
            values = (examples / self._seconds, waited / self._seconds)
            reporter.report(dict(zip(THROUGHPUT_KEYS, values)))
            self.initialize(trainer)

    def serialize(self, serializer):
        """Saves or loads the interval's state."""
        self._interval.serialize(serializer)
