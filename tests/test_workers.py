"""Workers with different data and different scales train one model."""

import json
import pathlib

import chainerlp

import numpy
import pytest
from chainer import optimizers

PROGRAM = pathlib.Path(__file__).with_name('workers_program.py')
RESUMING = pathlib.Path(__file__).with_name('resumed_workers_program.py')
AVERAGING = pathlib.Path(__file__).with_name('gradients_program.py')

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


_averages = {}


@pytest.fixture
def average(mpiexec):
    """Averages the gradients of a case; returns for each parameter those of the workers, the mean.

    The scale that it carries is the third. Checks that the last two are the same on all workers.
    """

    def average(workers, case, zero_fill=False):
        if workers not in _averages:
            done = mpiexec(workers, str(AVERAGING))
            assert done.returncode == 0, done.stderr
            _averages[workers] = json.loads(done.stdout.splitlines()[-1])
        before, after = zip(*_averages[workers][f'{case} {zero_fill}'])
        assert all(other == after[0] for other in after[1:])
        return {path: ([own[path] for own in before], *after[0][path]) for path in after[0]}

    return average


def assert_is_mean(gradients, mean, scale):
    gradients = [numpy.zeros_like(mean) if g is None else numpy.array(g) for g in gradients]
    # Three roundings to float16: when rescaled, when summed up, when divided.
    share = numpy.mean([numpy.abs(g) for g in gradients], axis=0)
    bound = 3 * (2.0**-11 * share + 2.0**-24 / scale)
    assert (numpy.abs(mean - numpy.mean(gradients, axis=0)) <= bound).all()


@pytest.mark.parametrize('zero_fill', [False, True])
def test_a_parameter_that_no_worker_has_a_gradient_for_carries_no_scale(average, zero_fill):
    found = average(2, 'without_gradients', zero_fill)
    _, mean, scale = found['/second/W']
    assert scale is None
    assert not numpy.any(mean) if zero_fill else mean is None


@pytest.mark.parametrize('zero_fill', [False, True])
def test_a_gradient_that_only_some_workers_have_counts_as_zero_on_the_others(average, zero_fill):
    gradients, mean, scale = average(3, 'without_gradients', zero_fill)['/first/W']
    assert gradients[:2] == [None, None]
    assert scale == 64
    assert_is_mean(gradients, mean, scale)


@pytest.mark.parametrize('workers', [2, 3])
def test_a_shared_parameter_is_averaged_once(average, workers):
    found = average(workers, 'shared')
    gradients, mean, scale = found['/first/W']
    assert_is_mean(gradients, mean, scale)
    assert found['/third/W'] == found['/first/W']


def test_a_worker_with_only_zeros_does_not_make_the_others_gradients_underflow(average):
    gradients, mean, scale = average(2, 'zero_on_one')['/first/W']
    assert scale == 2.0**40
    assert_is_mean(gradients, mean, scale)
    assert numpy.all(mean)
    # What this is about: at the other worker's scale of 1, none would be left.
    assert not numpy.float16(mean).any()


def test_only_zeros_stay_zeros(average):
    _, mean, scale = average(2, 'zero_on_all')['/first/W']
    assert not numpy.any(mean)
    assert 0 < scale < numpy.inf


def test_of_scales_far_apart_the_largest_is_taken_at_which_the_sum_fits(average):
    gradients, mean, scale = average(2, 'far_apart')['/first/W']
    largest = sum(numpy.abs(g).max() for g in gradients)
    assert largest * scale <= 65504 < 2 * largest * scale
    assert_is_mean(gradients, mean, scale)


@pytest.mark.parametrize('workers', [2, 3])
def test_a_mean_that_fits_is_finite_although_the_sum_would_not_be(average, workers):
    gradients, mean, scale = average(workers, 'large')['/first/W']
    assert numpy.sum(gradients, axis=0).min() > 65504
    assert_is_mean(gradients, mean, scale)


def test_gradients_that_are_views_are_averaged(average):
    for gradients, mean, scale in average(2, 'views').values():
        assert_is_mean(gradients, mean, 1.0 if scale is None else scale)


@pytest.mark.parametrize('interrupted_after', [2, 10])
def test_a_resumed_training_goes_on_as_if_not_interrupted(mpiexec, tmp_path, interrupted_after):
    done = mpiexec(2, str(RESUMING), str(tmp_path), str(interrupted_after))
    assert done.returncode == 0, done.stderr
    everyones = json.loads(done.stdout.splitlines()[-1])
    for whole, resumed, _ in everyones:
        assert resumed == whole
        assert whole[1] == 19  # ChainerMN's first update only distributes the parameters


def test_where_only_the_first_worker_resumes_the_others_get_its_parameters(mpiexec, tmp_path):
    done = mpiexec(2, str(RESUMING), str(tmp_path), '10')
    assert done.returncode == 0, done.stderr
    (_, _, first), (_, _, second) = json.loads(done.stdout.splitlines()[-1])
    assert second[0] == first[0]
    assert (first[1], second[1]) == (9, 0)


def test_double_buffering_is_refused():
    from chainermn.optimizers import _DoubleBufferingOptimizer

    optimizer = object.__new__(_DoubleBufferingOptimizer)
    for name, value in [('actual_optimizer', optimizers.SGD()), ('communicated_target', None)]:
        object.__setattr__(optimizer, name, value)
    with pytest.raises(TypeError, match='leave out double_buffering=True'):
        chainerlp.AdaptiveLossScaling(optimizer)
