"""Where a run's results come from: command, code, versions, machine."""

import datetime
import importlib.metadata
import os
import platform
import subprocess

import chainerlp  # noqa: F401 -- it lets Chainer be imported

import chainer
import numpy

_HERE = os.path.dirname(os.path.abspath(__file__))


def of(config, launch):
    """Describes the present start of a run.

    Args:
        config (experiments.config.Config): The run's config.
        launch (experiments.runner.Launch): How it is started.

    Returns:
        dict: What JSON can hold.
    """
    communicator = launch.communicator
    return {
        'time': datetime.datetime.now().astimezone().isoformat(timespec='seconds'),
        'command': launch.command,
        'seed': config.seed,
        'device': str(launch.device),
        'workers': 1 if communicator is None else communicator.size,
        'git': _git(),
        'versions': _versions(launch.device),
        'platform': platform.platform(),
    }


def _versions(device):
    versions = {
        'python': platform.python_version(),
        'numpy': numpy.__version__,
        'chainer': chainer.__version__,
        'chainerlp': _version_of_ours(),
    }
    if device.xp is not numpy:
        versions['cupy'] = device.xp.__version__
    return versions


def _version_of_ours():
    try:
        return importlib.metadata.version('chainerlp')
    except importlib.metadata.PackageNotFoundError:
        return None  # it runs from a checkout


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
