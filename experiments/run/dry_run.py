"""What a command would run, and about how long that would take; nothing is written."""

import collections
import os
import statistics
import tempfile
import time
from typing import NamedTuple, Optional

from experiments.config.errors import DataError
from experiments.reports import summary
from experiments.run import sweep, train

import numpy
from chainer import training

_UNTIMED, _TIMED = 1, 3
_HEADER = ('run', 'state', 'iterations', 's / iteration', 'to go')
_LEGEND = f"""\
times      measured just now, in {_TIMED} iterations of each model and way of scaling; evaluations
           and snapshots come on top"""


class _Estimate(NamedTuple):
    """How many iterations a training has, the seconds of one, or why it cannot be run."""

    iterations: Optional[int] = None
    seconds: float = 0.0
    error: Optional[str] = None


def describe(configs, folder, launch, at_a_time, progress):
    """Describes what would be run.

    Args:
        configs (list of experiments.config.Config): The runs.
        folder (str): Each has a folder of its own in it.
        launch (experiments.run.launch.Launch): How they would be started.
        at_a_time (int): How many would be run at a time.
        progress (callable): Is told in words what is being measured.

    Returns:
        tuple: The description, a table as a str, and whether every run would begin.

    Raises:
        ConfigError: If a folder holds a run of another config, or the data is not there.
    """
    estimates, rows, to_go, errors = {}, [], 0.0, collections.Counter()
    for config, state in zip(configs, sweep.find_states(configs, folder, launch)):
        if state.result is not None:
            rows.append((config.run_name, 'finished', str(state.result.iterations), '', ''))
            continue
        if state.problem is not None:
            estimate = _Estimate(error=state.problem)
        else:
            kind = config.model_copy(update={'seed': 0})
            if kind not in estimates:
                progress(f'measuring {config.run_name}')
                estimates[kind] = _measure(config, launch)
            estimate = estimates[kind]
        if estimate.error is not None:
            errors[estimate.error] += 1
            rows.append((config.run_name, 'fails', '', '', ''))
            continue
        left = (estimate.iterations - (state.iteration or 0)) * estimate.seconds
        to_go += left
        start = 'new' if state.iteration is None else f'resumes at {state.iteration}'
        times = f'{estimate.seconds:.3g}', duration(left)
        rows.append((config.run_name, start, str(estimate.iterations), *times))
    together = f'; {at_a_time} at a time: about {duration(to_go / at_a_time)}'
    total = f'to go      {duration(to_go)}' + (together if at_a_time > 1 else '')
    reasons = [
        f'fails      {error}' + (f' ({count} runs)' if count > 1 else '')
        for error, count in errors.items()
    ]
    lines = [*reasons, *summary.aligned([_HEADER, *rows]), '', total, _LEGEND]
    return '\n'.join(lines), not errors


def duration(seconds):
    """Shows a time in the unit that fits.

    >>> duration(0.42), duration(75), duration(3600 * 30)
    ('0.4 s', '1 min 15 s', '30 h 00 min')
    """
    if seconds < 60:
        return f'{seconds:.1f} s'
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f'{minutes} min {rest:02} s'
    return f'{minutes // 60} h {minutes % 60:02} min'


def _measure(config, launch):
    times = []

    def note_time(trainer):
        if launch.device.xp is not numpy:
            launch.device.xp.cuda.Device().synchronize()
        times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder, train.settings(config, launch.device):
        try:
            trainer = train.build_timed_trainer(config, os.path.join(folder, 'run'), launch)
            iterations = trainer.stop_trigger.period
            timed = min(_UNTIMED + _TIMED, iterations)
            trainer.stop_trigger = training.get_trigger((timed, 'iteration'))
            trainer.extend(note_time, trigger=(1, 'iteration'), priority=-1000)
            note_time(trainer)
            trainer.run(show_loop_exception_msg=False)
        except DataError:  # all of them would say the same
            raise
        except Exception as error:  # the others are described all the same
            if launch.communicator is not None:
                raise
            return _Estimate(error=' '.join(f'{type(error).__name__}: {error}'.split()))
    seconds = [after - before for before, after in zip(times, times[1:])]
    return _Estimate(iterations, statistics.median(seconds[_UNTIMED:] or seconds))
