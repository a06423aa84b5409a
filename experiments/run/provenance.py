"""Where a run's results come from: command, code, versions, machine, in ``run.json``."""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess

from chainerlp.extensions.atomic_write import write_text

import chainer
import numpy

FILE = 'run.json'
_HERE = os.path.dirname(os.path.abspath(__file__))


def record(folder, config, launch, iteration):
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
    content = json.dumps({'starts': [*starts(folder), start]}, indent=2)
    write_text(os.path.join(folder, FILE), content)


def starts(folder):
    """Returns what was recorded of a run's starts, a list of dicts; empty if it cannot be read."""
    try:
        with open(os.path.join(folder, FILE), encoding='utf-8') as file:
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
