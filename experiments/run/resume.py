"""Resuming a run: what an earlier start left in its folder, and the folder made ready to go on.

Each start is noted in the run's manifest: where the results come from, in command, code, versions
and machine. Files that are not what the manifest knows are put aside, and the run goes on.
"""

import contextlib
import dataclasses
import datetime
import glob
import importlib.metadata
import os
import platform
import stat
import subprocess
from typing import Optional

from chainerlp.extensions.files import make_folder, write_text
from experiments.config import loading
from experiments.config.errors import ConfigError, RunError, shown
from experiments.reports import manifest, run_files, summary
from experiments.reports.manifest import Manifest
from experiments.reports.run_files import CONFIG, ERROR, LOG, RECORD, RESULT
from experiments.run import snapshots
from experiments.run.snapshots import ASIDE, remove

import chainer
import numpy
import yaml

try:
    import fcntl
except ImportError:  # Windows: two processes are not kept from one folder there
    fcntl = None

_LOCK = '.lock'
_OUTDATED = ('*.unfinished*', ERROR, RESULT)  # a result that is there is damaged
# What says that there is a run goes first: a start that is killed amidst them begins anew.
_OF_A_RUN = (RECORD, *run_files.READERS, 'snapshot_iter_*', f'*{ASIDE}', *_OUTDATED)
_WAY_OUT = '--fresh starts over, another --out leaves it as it is'
_HERE = os.path.dirname(os.path.abspath(__file__))


@dataclasses.dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        iteration (int): Of the snapshot to resume from; ``None`` if it begins anew.
        damaged (dict): Why newer snapshots are not taken, by their iterations.
        result (experiments.reports.summary.Result): Of a finished run; ``None`` otherwise.
        warnings (tuple of str): What else is damaged, a line each.
        problem (str): Why the run cannot be gone on with, in one line; ``None`` if it can.
    """

    iteration: Optional[int] = None
    damaged: dict = dataclasses.field(default_factory=dict)
    result: Optional[summary.Result] = None
    warnings: tuple = ()
    problem: Optional[str] = None


def find_state(folder, config, launch):
    """Returns the :class:`State` in which an earlier start left a run's folder, if there is one.

    Of a finished run whose result is damaged, the last snapshot makes another.

    Raises:
        ConfigError: If it is there with another config, or with another number of workers.
    """
    is_there = any(os.path.lexists(os.path.join(folder, name)) for name in (CONFIG, RECORD))
    if launch.fresh or not is_there:
        return State()
    damages, noted = {}, Manifest()
    try:
        noted = manifest.read(folder, config.run_name)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        damages[RECORD] = run_files.reason(error)
    problem = _config_problem(folder, config, noted)
    if problem is not None:
        return State(problem=problem)
    result, iteration, damaged = _finished(folder, config, noted), None, {}
    if result is None:
        iteration, damaged = snapshots.newest_intact(folder, config.run_name)
    damages.update(noted.damages(folder, iteration))
    if iteration is not None:
        _check_workers(folder, noted, launch)
        damages.pop(RESULT, None)  # it is made again
    warnings = []
    for name, why in damages.items():
        path = os.path.join(folder, name)
        is_kept = iteration is not None and name != RECORD and os.path.lexists(path)
        kept = f', and kept as {name}{ASIDE}' if is_kept else ''
        warnings.append(f'{path} is damaged ({why}){kept}')
    return State(iteration, damaged, result, tuple(warnings))


def prepare(folder, config, launch, state):
    """Makes a folder ready for a run to begin or to go on from its state, and notes the start."""
    for pattern in _OF_A_RUN if state.iteration is None else _OUTDATED:
        for path in glob.glob(os.path.join(glob.escape(folder), pattern)):
            remove(path)
    if state.iteration is None:
        write_text(os.path.join(folder, CONFIG), loading.dump(config))
        noted = Manifest(name=config.run_name)
        noted.note_files(folder)
    else:
        noted = manifest.known(folder, config.run_name)
    damages = noted.damages(folder, state.iteration)
    noted.go_back(state.iteration)
    if os.path.isdir(os.path.join(folder, RECORD)):
        remove(os.path.join(folder, RECORD))
    noted.starts.append(_start(config, launch, state.iteration or 0))
    noted.write(folder)
    for iteration in state.damaged:
        remove(snapshots.path_of(folder, iteration))
    if state.iteration is not None:
        _take_back_files(folder, noted, damages)


def _take_back_files(folder, noted, damages):
    """Makes files what they were at the newest snapshot; what is damaged is put aside."""
    was = noted.files_at(None)
    for name in run_files.READERS:
        path = os.path.join(folder, name)
        if name in damages and os.path.lexists(path):
            os.replace(path, path + ASIDE)
        elif name in was and name not in (*damages, LOG):  # the log is in the snapshot
            os.truncate(path, was[name].size)
        elif noted.snapshots and name not in (*was, CONFIG):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


def record_end(folder, result):
    """Notes what a run's files are at its end, and the text of its result, which is yet to come."""
    noted = manifest.known(folder)
    noted.note_files(folder)
    noted.note_result(result)
    noted.write(folder)


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


def _config_problem(folder, config, noted):
    """Returns why a folder's config cannot be compared with the one given, or ``None``.

    Raises:
        ConfigError: If it is another.
    """
    path = os.path.join(folder, CONFIG)
    try:
        there = run_files.read_config(noted.read_file(folder, CONFIG))
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


def _check_workers(folder, noted, launch):
    there = [start.get('workers', 1) for start in noted.starts[-1:]]
    if there not in ([], [launch.workers]):
        given = f'with {shown(there[0])} workers, and there are {launch.workers}'
        raise ConfigError(f'{folder}: was begun {given}: {_WAY_OUT}')


def _finished(folder, config, noted):
    try:
        return summary.restore(config, run_files.read_result(noted.read_file(folder, RESULT)))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None  # there is none, or it is damaged: the last snapshot has it


def _start(config, launch, iteration):
    return {
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
