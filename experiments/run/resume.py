"""Resuming a run: what an earlier start left in its folder, and the folder made ready to go on.

Each start is recorded in ``run.json``: where the results come from, in command, code, versions and
machine.
"""

import contextlib
import dataclasses
import datetime
import glob
import importlib.metadata
import json
import os
import platform
import subprocess
from typing import Optional

from chainerlp.extensions.atomic_write import write_text
from experiments.config import loading
from experiments.config.errors import ConfigError, RunError, shown
from experiments.reports import summary
from experiments.reports.run_folder import CONFIG, ERROR, LOG, RESULT, SCALES
from experiments.run import snapshots

import chainer
import numpy
import yaml

try:
    import fcntl
except ImportError:  # Windows: two processes are not kept from one folder there
    fcntl = None

_LOCK = '.lock'
_STARTS = 'run.json'
_UNFINISHED = ('*.unfinished*', ERROR)
_OF_A_RUN = (CONFIG, LOG, SCALES, RESULT, _STARTS, 'snapshot_iter_*', *_UNFINISHED)
_WAY_OUT = '--fresh starts over, another --out leaves it as it is'
_HERE = os.path.dirname(os.path.abspath(__file__))


@dataclasses.dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        iteration (int): Of the snapshot to resume from; ``None`` if it begins anew.
        damaged (tuple of int): Iterations of newer snapshots that are damaged.
        result (experiments.reports.summary.Result): Of a finished run; ``None`` otherwise.
    """

    iteration: Optional[int] = None
    damaged: tuple = ()
    result: Optional[summary.Result] = None


def find_state(folder, config, launch):
    """Returns the :class:`State` in which an earlier start left a run's folder, if there is one.

    Raises:
        ConfigError: If it is there with another config, or with another number of workers.
    """
    if launch.fresh or not os.path.exists(os.path.join(folder, CONFIG)):
        return State()
    _check_config(folder, config)
    result = _finished(folder, config)
    if result is not None:
        return State(result=result)
    iteration, damaged = snapshots.newest_intact(folder)
    if iteration is not None:
        _check_workers(folder, launch)
    return State(iteration, tuple(damaged))


def prepare(folder, config, launch, state):
    """Makes a folder ready for a run to begin or to go on from its state, and records the start."""
    for pattern in _OF_A_RUN if state.iteration is None else _UNFINISHED:
        for path in glob.glob(os.path.join(glob.escape(folder), pattern)):
            os.remove(path)
    for iteration in state.damaged:
        with contextlib.suppress(FileNotFoundError):
            os.remove(snapshots.path_of(folder, iteration))
    write_text(os.path.join(folder, CONFIG), loading.dump(config))
    _record(folder, config, launch, state.iteration or 0)


@contextlib.contextmanager
def locked(folder):
    """Makes a folder, and keeps other processes from working in it.

    The system itself frees it when the process ends, however it does.

    Raises:
        RunError: If another process works in it.
    """
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, _LOCK), 'a+', encoding='ascii') as file:
        if fcntl is not None:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                file.seek(0)
                raise RunError(f'{folder}: process {file.read().strip()} works in it') from None
            except OSError:
                pass  # a file system without locks
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _check_config(folder, config):
    path = os.path.join(folder, CONFIG)
    try:
        with open(path, encoding='utf-8') as file:
            there = yaml.safe_load(file)
        both = [there, yaml.safe_load(loading.dump(config))]
        for content in both:
            content.pop('loading', None)  # the training is the same whatever is said there
        differing = loading.compare(both)
    except (ValueError, AttributeError, yaml.YAMLError):
        raise ConfigError(f'{path} is damaged: {_WAY_OUT}') from None
    if differing:
        key, (there, here) = next(iter(differing.items()))
        raise ConfigError(
            f'{path}: {key} is {shown(there)} there and {shown(here)} here: {_WAY_OUT}'
        )


def _check_workers(folder, launch):
    there = {start.get('workers', 1) for start in _starts(folder)[-1:]}
    if there - {launch.workers}:
        given = f'with {there.pop()} workers, and there are {launch.workers}'
        raise ConfigError(f'{folder}: was begun {given}: {_WAY_OUT}')


def _finished(folder, config):
    try:
        with open(os.path.join(folder, RESULT), encoding='utf-8') as file:
            return summary.restore(config, json.load(file))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # there is none, or it is damaged: the last snapshot has it


def _record(folder, config, launch, iteration):
    """Adds the present start of a run, at an iteration, to ``run.json``."""
    start = {
        'iteration': iteration,
        'time': datetime.datetime.now().astimezone().isoformat(timespec='seconds'),
        'command': launch.command,
        'seed': config.seed,
        'device': str(launch.device),
        'workers': launch.workers,
        'git': _git(),
        'versions': _versions(launch.device),
        'platform': platform.platform(),
    }
    content = json.dumps({'starts': [*_starts(folder), start]}, indent=2)
    write_text(os.path.join(folder, _STARTS), content)


def _starts(folder):
    """Returns what was recorded of a run's starts, a list of dicts; empty if it cannot be read."""
    try:
        with open(os.path.join(folder, _STARTS), encoding='utf-8') as file:
            return list(json.load(file)['starts'])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _versions(device):
    try:
        ours = importlib.metadata.version('chainerlp')
    except importlib.metadata.PackageNotFoundError:
        ours = None  # it runs from a checkout
    versions = {
        'python': platform.python_version(),
        'numpy': numpy.__version__,
        'chainer': chainer.__version__,
        'chainerlp': ours,
    }
    if device.xp is not numpy:
        versions['cupy'] = device.xp.__version__
    return versions


def _git():
    """Returns the commit that this file is from and whether anything was changed since."""
    try:
        _output_of('ls-files', '--error-unmatch', os.path.join(_HERE, '__init__.py'))
        return {
            'commit': _output_of('rev-parse', 'HEAD'),
            'dirty': bool(_output_of('status', '--porcelain', '--untracked-files=no')),
        }
    except (OSError, subprocess.SubprocessError):
        return None  # no git, or no checkout


def _output_of(*arguments):
    command = ['git', '-C', _HERE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
