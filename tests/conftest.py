"""Options of the test run, the GPU, and running Python on many workers."""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import chainerlp

import chainer
import pytest


def pytest_addoption(parser):
    parser.addoption(
        '--strict-mpi', action='store_true', help='fail instead of skip where there is no MPI'
    )


def pytest_runtest_setup(item):
    if item.get_closest_marker('gpu') is None:
        return
    reason = chainerlp.compat.why_no_cupy()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def device():
    """Returns the GPU, as Chainer's current device."""
    device = chainer.get_device('@cupy:0')
    with chainer.using_device(device):
        yield device


@pytest.fixture
def mpiexec(request):
    """Runs Python under mpiexec; takes the number of workers, then arguments.

    Skips where there is no MPI; `make test-mpi`, which installs one, must not skip.
    """
    missing = [] if shutil.which('mpiexec') else ['mpiexec']
    missing += [] if importlib.util.find_spec('mpi4py') else ['mpi4py']
    if missing:
        (pytest.fail if request.config.getoption('--strict-mpi') else pytest.skip)(
            f'no {" and no ".join(missing)}'
        )
    environment = dict(
        os.environ,
        PYTHONPATH=str(pathlib.Path(__file__).parents[1]),
        OPENBLAS_NUM_THREADS='1',
        OMPI_ALLOW_RUN_AS_ROOT='1',
        OMPI_ALLOW_RUN_AS_ROOT_CONFIRM='1',
    )

    def run(workers, *arguments):
        command = ['mpiexec', '--oversubscribe', '-n', str(workers), sys.executable, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    return run
