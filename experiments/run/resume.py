"""Resuming a run: what an earlier start left in its folder, and the folder made ready to go on.

Each start is recorded in ``run.json``: where the results come from, in command, code, versions and
machine. The end adds checksums of the results.
"""

import contextlib
import dataclasses
import datetime
import glob
import importlib.metadata
import json
import os
import platform
import stat
import subprocess
from typing import Optional

from chainerlp.extensions.files import make_folder, write_text
from experiments.config import loading
from experiments.config.errors import ConfigError, RunError, shown
from experiments.reports import run_files, summary
from experiments.reports.run_files import CONFIG, ERROR, LOG, RECORD, RESULT, SCALES
from experiments.run import snapshots

import chainer
import numpy
import yaml

try:
    import fcntl
except ImportError:  # Windows: two processes are not kept from one folder there
    fcntl = None

_LOCK = '.lock'
_OUTDATED = ('*.unfinished*', ERROR, RESULT)  # a result that is there is damaged
_OF_A_RUN = (*run_files.READERS, RECORD, 'snapshot_iter_*', *_OUTDATED)
_WAY_OUT = '--fresh starts over, another --out leaves it as it is'
_HERE = os.path.dirname(os.path.abspath(__file__))


@dataclasses.dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        iteration (int): Of the snapshot to resume from; ``None`` if it begins anew.
        damaged (tuple of int): Iterations of newer snapshots that are damaged.
        result (experiments.reports.summary.Result): Of a finished run; ``None`` otherwise.
        warnings (tuple of str): What else is damaged, a line each.
        problem (str): Why the run cannot be gone on with, in one line; ``None`` if it can.
    """

    iteration: Optional[int] = None
    damaged: tuple = ()
    result: Optional[summary.Result] = None
    warnings: tuple = ()
    problem: Optional[str] = None


def find_state(folder, config, launch):
    """Returns the :class:`State` in which an earlier start left a run's folder, if there is one.

    Of a finished run whose result is damaged, the last snapshot makes another; but what the
    snapshot does not have must be whole for it, or the run begins anew.

    Raises:
        ConfigError: If it is there with another config, or with another number of workers.
    """
    if launch.fresh or not os.path.exists(os.path.join(folder, CONFIG)):
        return State()
    damages = run_files.damages(folder)
    problem = _config_problem(folder, config, damages)
    if problem is not None:
        return State(problem=problem)
    result = None if RESULT in damages else _finished(folder, config)
    iteration, damaged = None, []
    if result is None and LOG not in damages and SCALES not in damages:
        iteration, damaged = snapshots.newest_intact(folder)
    if iteration is not None:
        _check_workers(folder, launch)
        damages.pop(RESULT, None)  # it is made again
    warnings = [f'{os.path.join(folder, name)} is damaged ({why})' for name, why in damages.items()]
    return State(iteration, tuple(damaged), result, tuple(warnings))


def prepare(folder, config, launch, state):
    """Makes a folder ready for a run to begin or to go on from its state, and records the start."""
    for pattern in _OF_A_RUN if state.iteration is None else _OUTDATED:
        for path in glob.glob(os.path.join(glob.escape(folder), pattern)):
            os.remove(path)
    for iteration in state.damaged:
        with contextlib.suppress(FileNotFoundError):
            os.remove(snapshots.path_of(folder, iteration))
    write_text(os.path.join(folder, CONFIG), loading.dump(config))
    _record(folder, config, launch, state.iteration or 0)


def record_end(folder, result):
    """Adds checksums of a run's files to ``run.json``, that of its result from the text to come."""
    content = {'starts': _starts(folder), 'checksums': run_files.checksums(folder, result)}
    write_text(os.path.join(folder, RECORD), json.dumps(content, indent=2))


@contextlib.contextmanager
def locked(folder):
    """Makes a folder, and keeps other processes from working in it.

    The system itself frees it when the process ends, however it does.

    Raises:
        RunError: If another process works in it, or the lock would be written into another file.
    """
    make_folder(folder)
    path = os.path.join(folder, _LOCK)
    with contextlib.suppress(FileNotFoundError):
        there = os.lstat(path)
        if not stat.S_ISREG(there.st_mode) or there.st_nlink > 1:
            raise RunError(f'{path}: given a link or no regular file, allowed: none, or its own')
    with open(path, 'a+', encoding='ascii') as file:
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


def _config_problem(folder, config, damages):
    """Returns why a folder's config cannot be compared with the one given, or ``None``.

    Raises:
        ConfigError: If it is another.
    """
    path = os.path.join(folder, CONFIG)
    if CONFIG in damages:
        return f'{path} is damaged: {_WAY_OUT} ({damages[CONFIG]})'
    try:
        there = run_files.read_config(path)
    except (OSError, ValueError) as error:
        return f'{path} is damaged: {_WAY_OUT} ({run_files.reason(error)})'
    both = [there, yaml.safe_load(loading.dump(config))]
    for content in both:
        content.pop('loading', None)  # the training is the same whatever is said there
    differing = loading.compare(both)
    if differing:
        key, (there, here) = next(iter(differing.items()))
        raise ConfigError(
            f'{path}: {key} is {shown(there)} there and {shown(here)} here: {_WAY_OUT}'
        )
    return None


def _check_workers(folder, launch):
    there = [start.get('workers', 1) for start in _starts(folder)[-1:]]
    if there not in ([], [launch.workers]):
        given = f'with {shown(there[0])} workers, and there are {launch.workers}'
        raise ConfigError(f'{folder}: was begun {given}: {_WAY_OUT}')


def _finished(folder, config):
    try:
        return summary.restore(config, run_files.read_result(os.path.join(folder, RESULT)))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
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
    write_text(os.path.join(folder, RECORD), content)


def _starts(folder):
    """Returns what was recorded of a run's starts, a list of dicts; empty if it cannot be read."""
    try:
        return run_files.read_record(os.path.join(folder, RECORD))['starts']
    except (OSError, ValueError):
        return []


def _versions(device):
    versions = {
        'python': platform.python_version(),
        'numpy': numpy.__version__,
        'chainer': chainer.__version__,
        'chainerlp': None,
    }
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # it runs from a checkout
        versions['chainerlp'] = importlib.metadata.version('chainerlp')
    if device.xp is not numpy:
        versions['cupy'] = device.xp.__version__
    return versions


def _git():
    """Returns the commit that this file is from and whether anything was changed since."""

    def output_of(*arguments):
        command = ['git', '-C', _HERE, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        output_of('ls-files', '--error-unmatch', os.path.join(_HERE, '__init__.py'))
        return {
            'commit': output_of('rev-parse', 'HEAD'),
            'dirty': bool(output_of('status', '--porcelain', '--untracked-files=no')),
        }
    except (OSError, subprocess.SubprocessError):
        return None  # no git, or no checkout
