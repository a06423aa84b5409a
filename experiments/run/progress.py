"""Showing how far training is: bars on a terminal, one line a run in a log."""

import sys
import time

from experiments.reports.tables import LOSS, percent, share
from experiments.run.dry_run import duration

import chainer
import tqdm
from chainer import training

# A loss on a GPU has to be waited for, so it is not looked at more often than it can be read.
_SECONDS_BETWEEN_LOSSES = 0.2


class Bars:
    """A bar for the runs, if there are several, and one for the iterations of the current run."""

    def __init__(self, runs):
        self._total = tqdm.tqdm(total=runs, desc='runs', unit='run', disable=runs == 1)

    def close(self):
        """Closes the bars."""
        self._total.close()

    def extensions(self, name):
        """Returns the trainer extensions that show a run of the given name."""
        return [_Bar(name, position=0 if self._total.disable else 1)]

    def finished(self, result):
        """Takes note of a finished run."""
        self._total.update()


class Lines:
    """One line a run, with the time left, for logs; the same methods as :class:`Bars`.

    The time is that of the runs so far, those that were finished before left out.
    """

    def __init__(self, runs):
        self._runs = runs
        self._finished = self._new = 0
        self._began = time.monotonic()

    def close(self):
        """Does nothing."""

    def extensions(self, name):
        """Returns no extensions."""
        return []

    def finished(self, result):
        """Prints the line."""
        self._finished += 1
        if result.error:
            outcome = f'failed: {result.error}'
        else:
            outcome = (
                f'{result.metric} {share(result.value)}, loss {LOSS(result.loss)},'
                f' underflow {percent(result.underflow.mean)}, skipped {result.skipped},'
                f' {result.seconds:.1f} s'
            )
            if result.incomplete:
                outcome += f'; incomplete: {result.incomplete}'
            if not result.is_new:
                outcome = f'finished before: {outcome}'
        self._new += result.is_new
        waiting = self._runs - self._finished
        if self._new and waiting:
            each = (time.monotonic() - self._began) / self._new
            outcome += f'; about {duration(each * waiting)} left'
        print(f'[{self._finished}/{self._runs}] {result.name}: {outcome}', file=sys.stderr)


class _Bar(training.Extension):
    """Trainer extension: a bar with iterations, their speed, and the loss."""

    trigger = (1, 'iteration')
    priority = training.PRIORITY_READER

    def __init__(self, name, position):
        self._name = name
        self._position = position
        self._next_loss = 0.0

    def initialize(self, trainer):
        """Opens the bar."""
        self._bar = tqdm.tqdm(
            total=trainer.stop_trigger.period,
            initial=trainer.updater.iteration,
            desc=self._name,
            position=self._position,
            leave=False,
            unit='it',
        )

    def __call__(self, trainer):
        """Moves on by one iteration."""
        now = time.monotonic()
        if now >= self._next_loss and 'main/loss' in trainer.observation:
            self._next_loss = now + _SECONDS_BETWEEN_LOSSES
            loss = float(chainer.as_array(trainer.observation['main/loss']))
            self._bar.set_postfix(loss=f'{loss:.3f}', refresh=False)
        self._bar.update()

    def finalize(self):
        """Closes the bar."""
        self._bar.close()
