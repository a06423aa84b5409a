"""Workers with different data and different scales train one model."""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import chainerlp

import numpy
import pytest
from chainer import optimizers

PROGRAM = pathlib.Path(__file__).with_name('workers_program.py')

pytestmark = pytest.mark.mpi


@pytest.fixture(autouse=True)
def needs_mpi(request):
    """Skips where there is no MPI; `make test-mpi`, which installs one, must not skip."""
    missing = [] if shutil.which('mpiexec') else ['mpiexec']
    missing += [] if importlib.util.find_spec('mpi4py') else ['mpi4py']
    if missing:
        (pytest.fail if request.config.getoption('--strict-mpi') else pytest.skip)(
            f'no {" and no ".join(missing)}'
        )


def train(workers, *arguments):
    environment = dict(
        os.environ,
        PYTHONPATH=str(PROGRAM.parents[1]),
        OPENBLAS_NUM_THREADS='1',
        OMPI_ALLOW_RUN_AS_ROOT='1',
        OMPI_ALLOW_RUN_AS_ROOT_CONFIRM='1',
    )
    command = ['mpiexec', '--oversubscribe', '-n', str(workers), sys.executable, str(PROGRAM)]
    done = subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize('policy', ['Adaptive', 'Measured'])
@pytest.mark.parametrize('workers', [2, 3])
def test_parameters_stay_identical_and_equal_those_of_one_process(workers, policy):
    result = train(workers, 'mixed16', policy)
    parameters = [numpy.array(rank[0]) for rank in result['ranks']]
    for other in parameters[1:]:
        numpy.testing.assert_array_equal(other, parameters[0])
    assert all(rank[1:] == [0, 50] for rank in result['ranks'])
    moved = numpy.abs(parameters[0]).max()
    # Each of 50 updates rounds each worker's gradients and the parameters to float16, 2^-11 each.
    bound = 50 * 0.05 * 2 * 2.0**-11 * moved + 2.0**-11 * moved
    assert numpy.abs(parameters[0] - numpy.array(result['reference'])).max() <= bound


@pytest.mark.parametrize('workers', [2, 3])
def test_in_float32_they_equal_one_process_within_the_rounding_of_the_mean(workers):
    result = train(workers, 'float32', 'Adaptive')
    parameters = [numpy.array(rank[0]) for rank in result['ranks']]
    for other in parameters[1:]:
        numpy.testing.assert_array_equal(other, parameters[0])
    # 50 updates, in each a mean of a few terms in float32: 2^-24 each, of values up to about 1.
    numpy.testing.assert_allclose(parameters[0], result['reference'], atol=50 * 4 * 2.0**-24)


@pytest.mark.parametrize('workers', [2, 3])
def test_a_gradient_that_is_not_finite_on_one_worker_skips_the_update_on_all(workers):
    result = train(workers, 'mixed16', 'Adaptive', '20')
    parameters = [numpy.array(rank[0]) for rank in result['ranks']]
    assert [rank[1] for rank in result['ranks']] == [1] * workers
    for other in parameters[1:]:
        numpy.testing.assert_array_equal(other, parameters[0])
    assert numpy.isfinite(parameters[0]).all()


def test_double_buffering_is_refused():
    from chainermn.optimizers import _DoubleBufferingOptimizer

    optimizer = object.__new__(_DoubleBufferingOptimizer)
    for name, value in [('actual_optimizer', optimizers.SGD()), ('communicated_target', None)]:
        object.__setattr__(optimizer, name, value)
    with pytest.raises(TypeError, match='leave out double_buffering=True'):
        chainerlp.AdaptiveLossScaling(optimizer)
