"""Workers with different data and different scales train one model."""

import json
import pathlib

import chainerlp

import numpy
import pytest
from chainer import optimizers

PROGRAM = pathlib.Path(__file__).with_name('workers_program.py')

pytestmark = pytest.mark.mpi


@pytest.fixture
def train(mpiexec):
    def train(workers, *arguments):
        done = mpiexec(workers, str(PROGRAM), *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return train


@pytest.mark.parametrize('policy', ['Adaptive', 'Measured'])
@pytest.mark.parametrize('workers', [2, 3])
def test_parameters_stay_identical_and_equal_those_of_one_process(train, workers, policy):
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
def test_in_float32_they_equal_one_process_within_the_rounding_of_the_mean(train, workers):
    result = train(workers, 'float32', 'Adaptive')
    parameters = [numpy.array(rank[0]) for rank in result['ranks']]
    for other in parameters[1:]:
        numpy.testing.assert_array_equal(other, parameters[0])
    # 50 updates, in each a mean of a few terms in float32: 2^-24 each, of values up to about 1.
    numpy.testing.assert_allclose(parameters[0], result['reference'], atol=50 * 4 * 2.0**-24)


@pytest.mark.parametrize('workers', [2, 3])
def test_a_gradient_that_is_not_finite_on_one_worker_skips_the_update_on_all(train, workers):
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
