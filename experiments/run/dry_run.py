"""What a command would run, and about how long that would take; nothing is written."""

import os
import statistics
import tempfile
import time
from typing import NamedTuple, Optional

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
    """How many iterations a training has, the seconds of one, or why that cannot be measured."""

    iterations: Optional[int] = None
    seconds: float = 0.0
    error: Optional[str] = None


class _Clock(training.Extension):
    """Trainer extension that notes when each iteration is over, on the device too."""

    trigger = (1, 'iteration')
    priority = -1000

    def __init__(self, device):
        self._device = device
        self.times = []

    def initialize(self, trainer):
        self.times.append(time.perf_counter())

    def __call__(self, trainer):
        if self._device.xp is not numpy:
            self._device.xp.cuda.Device().synchronize()
        self.times.append(time.perf_counter())


def describe(configs, folder, launch, at_a_time=1, progress=lambda text: None):
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
        ConfigError: If a folder holds a run of another config.
    """
    states = sweep.find_states(configs, folder, launch)
    estimates, rows, to_go = {}, [], 0.0
    for config, state in zip(configs, states):
        if state.problem is not None:
            rows.append((config.run_name, f'fails: {state.problem}', '', '', ''))
            continue
        if state.result is not None:
            rows.append((config.run_name, 'finished', str(state.result.iterations), '', ''))
            continue
        kind = config.model_copy(update={'seed': 0, 'name': 'any'}).model_dump_json()
        if kind not in estimates:
            progress(f'measuring {config.run_name}')
            estimates[kind] = _measure(config, launch)
        estimate = estimates[kind]
        if estimate.error is not None:
            rows.append((config.run_name, f'fails: {estimate.error}', '', '', ''))
            continue
        left = (estimate.iterations - (state.iteration or 0)) * estimate.seconds
        to_go += left
        kind_of_start = 'new' if state.iteration is None else f'resumes at {state.iteration}'
        seconds = f'{estimate.seconds:.3g}'
        rows.append(
            (config.run_name, kind_of_start, str(estimate.iterations), seconds, duration(left))
        )
    lines = summary.aligned([_HEADER, *rows])
    together = f'; {at_a_time} at a time: about {duration(to_go / at_a_time)}'
    lines += ['', f'to go      {duration(to_go)}' + (together if at_a_time > 1 else ''), _LEGEND]
    is_whole = all(state.problem is None for state in states)
    return '\n'.join(lines), is_whole and all(e.error is None for e in estimates.values())


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
    with tempfile.TemporaryDirectory() as folder, train.settings(config, launch.device):
        try:
            trainer = train.build_timed_trainer(config, os.path.join(folder, 'run'), launch)
            iterations = trainer.stop_trigger.period
            trainer.stop_trigger = training.get_trigger(
                (min(_UNTIMED + _TIMED, iterations), 'iteration')
            )
            clock = _Clock(launch.device)
            trainer.extend(clock)
            trainer.run(show_loop_exception_msg=False)
        except Exception as error:  # the others are described all the same
            if launch.communicator is not None:
                raise
            return _Estimate(error=' '.join(f'{type(error).__name__}: {error}'.split()))
    times = [after - before for before, after in zip(clock.times, clock.times[1:])]
    return _Estimate(iterations, statistics.median(times[_UNTIMED:] or times))
