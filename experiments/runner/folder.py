"""A run's folder: what is in it, who works in it, and what there is to be done."""

import contextlib
import dataclasses
import glob
import json
import os
from typing import Optional

from chainerlp.extensions.atomic_write import write_text
from experiments import differences, summary
from experiments.complaints import shown
from experiments.errors import ConfigError, RunError
from experiments.runner import provenance, snapshots

import yaml

try:
    import fcntl
except ImportError:  # Windows: nobody keeps two processes from one folder there
    fcntl = None

CONFIG, ERROR, RESULT, SCALES = 'config.yaml', 'error.txt', 'result.json', 'scales.csv'
_STARTS = 'run.json'
_LOCK = '.lock'
_OF_A_RUN = (CONFIG, 'log', SCALES, ERROR, RESULT, _STARTS, 'snapshot_iter_*', '*.unfinished*')
_UNFINISHED = ('*.unfinished*', ERROR)


@dataclasses.dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        iteration (int): Of the snapshot to resume from; ``None`` if it begins anew.
        damaged (tuple of int): Iterations of newer snapshots that are damaged.
        result (experiments.summary.Result): Of a finished run; ``None`` otherwise.
    """

    iteration: Optional[int] = None
    damaged: tuple = ()
    result: Optional[summary.Result] = None


def state(folder, config, launch):
    """Looks at what an earlier run left.

    Args:
        folder (str): The run's folder; there may be none.
        config (experiments.config.Config): The run's config.
        launch (experiments.runner.Launch): How it is started.

    Returns:
        State: How far it is.

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
    """Makes a folder ready for a run to begin or to go on, and writes down where it comes from.

    Args:
        folder (str): The folder.
        config (experiments.config.Config): The run's config.
        launch (experiments.runner.Launch): How it is started.
        state (State): How far it is.
    """
    _remove(folder, _OF_A_RUN if state.iteration is None else _UNFINISHED)
    for iteration in state.damaged:
        with contextlib.suppress(FileNotFoundError):
            os.remove(snapshots.path_of(folder, iteration))
    write_text(os.path.join(folder, CONFIG), _content(config))
    start = {'iteration': state.iteration or 0, **provenance.of(config, launch)}
    content = json.dumps({'starts': [*_starts(folder), start]}, indent=2)
    write_text(os.path.join(folder, _STARTS), content)


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


def _content(config):
    content = config.model_dump(mode='python', exclude_none=True)
    return yaml.safe_dump(content, sort_keys=False)


def _check_config(folder, config):
    path = os.path.join(folder, CONFIG)
    way_out = '--fresh starts over, another --out leaves it as it is'
    try:
        with open(path, encoding='utf-8') as file:
            theirs = yaml.safe_load(file)
        both = [theirs, yaml.safe_load(_content(config))]
        for content in both:
            content.pop('loading', None)  # the training is the same whatever is said there
        differing = differences.of(both)
    except (ValueError, AttributeError, yaml.YAMLError):
        raise ConfigError(f'{path} is damaged: {way_out}') from None
    if differing:
        key, (there, here) = next(iter(differing.items()))
        raise ConfigError(
            f'{path}: {key} is {shown(there)} there and {shown(here)} here: {way_out}'
        )


def _check_workers(folder, launch):
    here = 1 if launch.communicator is None else launch.communicator.size
    there = {start.get('workers', 1) for start in _starts(folder)[-1:]}
    if there - {here}:
        raise ConfigError(
            f'{folder}: was begun with {there.pop()} workers, and there are {here}: --fresh starts'
            ' over, another --out leaves it as it is'
        )


def _finished(folder, config):
    try:
        with open(os.path.join(folder, RESULT), encoding='utf-8') as file:
            return summary.restore(config, json.load(file))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # there is none, or it is damaged: the last snapshot has it


def _starts(folder):
    try:
        with open(os.path.join(folder, _STARTS), encoding='utf-8') as file:
            return list(json.load(file)['starts'])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _remove(folder, patterns):
    for pattern in patterns:
        for path in glob.glob(os.path.join(glob.escape(folder), pattern)):
            os.remove(path)
