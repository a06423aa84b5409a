"""Workers with different data and different scales train one model with ChainerMN."""

import json
import pathlib

import chainerlp
from chainerlp import backprop, multi_node, statistics
from chainerlp.scaled_array import MARGIN, ScaledArray

import chainer
import chainer.functions as F
import numpy
import pytest
from chainer import optimizers
from chainer.backends import cuda
from hypothesis import given
from hypothesis import strategies as st

FOLDER = pathlib.Path(__file__).parent
TRAINING = FOLDER / 'multi_node_training_program.py'
RESUMING = FOLDER / 'multi_node_resuming_program.py'
AVERAGING = FOLDER / 'multi_node_averaging_program.py'
EXCHANGING = FOLDER / 'multi_node_exchanging_program.py'


@pytest.fixture
def train(mpiexec):
    def train(workers, *arguments):
        done = mpiexec(workers, str(TRAINING), *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return train


@pytest.mark.mpi
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


@pytest.mark.mpi
@pytest.mark.parametrize('workers', [2, 3])
def test_in_float32_they_equal_one_process_within_the_rounding_of_the_mean(train, workers):
    result = train(workers, 'float32', 'Adaptive')
    parameters = [numpy.array(rank[0]) for rank in result['ranks']]
    for other in parameters[1:]:
        numpy.testing.assert_array_equal(other, parameters[0])
    # 50 updates, in each a mean of a few terms in float32: 2^-24 each, of values up to about 1.
    numpy.testing.assert_allclose(parameters[0], result['reference'], atol=50 * 4 * 2.0**-24)


@pytest.mark.mpi
@pytest.mark.parametrize('workers', [2, 3])
def test_a_gradient_that_is_not_finite_on_one_worker_skips_the_update_on_all(train, workers):
    result = train(workers, 'mixed16', 'Adaptive', '20')
    parameters = [numpy.array(rank[0]) for rank in result['ranks']]
    assert [rank[1] for rank in result['ranks']] == [1] * workers
    for other in parameters[1:]:
        numpy.testing.assert_array_equal(other, parameters[0])
    assert numpy.isfinite(parameters[0]).all()


_averages = {}


@pytest.fixture(params=['own', 'float16'])
def average(request, mpiexec):
    """Averages the gradients of a case; returns for each parameter those of the workers, the mean.

    They are summed in their own dtype, which is float32, or in float16. Checks that the mean is the
    same on all workers.
    """

    def average(workers, case, zero_fill=False):
        if workers not in _averages:
            done = mpiexec(workers, str(AVERAGING))
            assert done.returncode == 0, done.stderr
            _averages[workers] = json.loads(done.stdout.splitlines()[-1])
        before, after = zip(*_averages[workers][f'{case} {zero_fill} {request.param}'])
        assert all(other == after[0] for other in after[1:])
        return {path: ([own[path] for own in before], after[0][path]) for path in after[0]}

    return average


def assert_is_mean(gradients, mean):
    gradients = [numpy.zeros_like(mean) if g is None else numpy.array(g) for g in gradients]
    # Three roundings to float16 at the most: when converted, when summed up, when divided. The sum
    # is brought near the largest half, so that subnormals are 2^-39 of it.
    share = numpy.mean([numpy.abs(g) for g in gradients], axis=0)
    bound = 3 * (2.0**-11 * share + 2.0**-37 * share.max())
    assert (numpy.abs(mean - numpy.mean(gradients, axis=0)) <= bound).all()


@pytest.mark.mpi
@pytest.mark.parametrize('zero_fill', [False, True])
def test_a_parameter_that_no_worker_has_a_gradient_for_gets_none(average, zero_fill):
    _, mean = average(2, 'without_gradients', zero_fill)['/second/W']
    assert mean is None or (zero_fill and not numpy.any(mean))


@pytest.mark.mpi
@pytest.mark.parametrize('zero_fill', [False, True])
def test_a_gradient_that_only_some_workers_have_counts_as_zero_on_the_others(average, zero_fill):
    gradients, mean = average(3, 'without_gradients', zero_fill)['/first/W']
    assert gradients[:2] == [None, None]
    assert_is_mean(gradients, mean)


@pytest.mark.mpi
@pytest.mark.parametrize('workers', [2, 3])
def test_a_shared_parameter_is_averaged_once(average, workers):
    found = average(workers, 'shared')
    gradients, mean = found['/first/W']
    assert_is_mean(gradients, mean)
    assert found['/third/W'] == found['/first/W']


@pytest.mark.mpi
def test_a_worker_with_only_zeros_does_not_make_the_others_gradients_underflow(average):
    gradients, mean = average(2, 'zero_on_one')['/first/W']
    assert_is_mean(gradients, mean)
    assert numpy.all(mean)
    # What this is about: at a scale of 1, none would be left in float16.
    assert not numpy.float16(mean).any()


@pytest.mark.mpi
def test_only_zeros_stay_zeros(average):
    _, mean = average(2, 'zero_on_all')['/first/W']
    assert not numpy.any(mean)


@pytest.mark.mpi
def test_gradients_of_sizes_far_apart_are_averaged(average):
    gradients, mean = average(2, 'far_apart')['/first/W']
    assert_is_mean(gradients, mean)


@pytest.mark.mpi
@pytest.mark.parametrize('workers', [2, 3])
def test_a_mean_that_fits_is_finite_although_the_sum_would_not_be(average, workers):
    gradients, mean = average(workers, 'large')['/first/W']
    assert numpy.sum(gradients, axis=0).min() > 65504
    assert_is_mean(gradients, mean)


@pytest.mark.mpi
def test_gradients_that_are_views_are_averaged(average):
    for gradients, mean in average(2, 'views').values():
        assert_is_mean(gradients, mean)


@pytest.mark.mpi
@pytest.mark.filterwarnings('ignore:30 updates in a row were skipped')
def test_a_loss_that_is_not_finite_on_one_worker_lets_none_back_off(mpiexec):
    done = mpiexec(2, str(TRAINING), 'bad losses')
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[12, 1.0]] * 2


@pytest.mark.mpi
@pytest.mark.parametrize('interrupted_after', [2, 10])
def test_a_resumed_training_goes_on_as_if_not_interrupted(mpiexec, tmp_path, interrupted_after):
    done = mpiexec(2, str(RESUMING), str(tmp_path), str(interrupted_after))
    assert done.returncode == 0, done.stderr
    everyones = json.loads(done.stdout.splitlines()[-1])
    for whole, resumed, _ in everyones:
        assert resumed == whole
        assert whole[1] == 19  # ChainerMN's first update only distributes the parameters


@pytest.mark.mpi
def test_where_only_the_first_worker_resumes_the_others_get_its_parameters(mpiexec, tmp_path):
    done = mpiexec(2, str(RESUMING), str(tmp_path), '10')
    assert done.returncode == 0, done.stderr
    (_, _, first), (_, _, second) = json.loads(done.stdout.splitlines()[-1])
    assert second[0] == first[0]
    assert (first[1], second[1]) == (9, 0)


@pytest.mark.mpi
def test_double_buffering_is_refused():
    from chainermn.optimizers import _DoubleBufferingOptimizer

    optimizer = object.__new__(_DoubleBufferingOptimizer)
    for name, value in [('actual_optimizer', optimizers.SGD()), ('communicated_target', None)]:
        object.__setattr__(optimizer, name, value)
    with pytest.raises(TypeError, match='leave out double_buffering=True'):
        chainerlp.AdaptiveLossScaling(optimizer)


EXCHANGES = [
    'normalization',
    'allgather',
    'alltoall',
    'bcast',
    'scatter',
    'gather',
    'there_and_back',
    'inside_forget',
]

_gradients = {}


@pytest.fixture
def exchange(mpiexec):
    def run(workers, what):
        done = mpiexec(workers, str(EXCHANGING), what)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.mark.mpi
@pytest.mark.parametrize('workers', [2, 3])
@pytest.mark.parametrize('case', EXCHANGES)
def test_exchanged_gradients_are_those_of_float32(exchange, case, workers):
    if workers not in _gradients:
        _gradients[workers] = exchange(workers, 'gradients')
    for scaled, reference in _gradients[workers][case]:
        assert scaled.keys() == reference.keys()
        for path, gradient in reference.items():
            gradient = numpy.array(gradient)
            # About 16 roundings to float16 lie between the input and a gradient.
            bound = 16 * 2.0**-11 * numpy.abs(gradient).max()
            assert bound > 0
            numpy.testing.assert_allclose(scaled[path], gradient, rtol=0, atol=bound)


@pytest.mark.mpi
def test_a_search_of_the_initial_scale_sends_nothing_to_who_does_not_search(exchange):
    scales, skipped, updates, parameters = zip(*exchange(2, 'search'))
    assert all(scale > 0 for scale in scales)
    # ChainerMN's first update only distributes the parameters; in the next two one loss is inf.
    assert skipped == (2, 2)
    assert updates == (5, 5)
    assert parameters[0] == parameters[1]
    assert all(numpy.isfinite(array).all() for array in parameters[0])


def test_functions_of_chainer_alone_do_not_communicate():
    class Own(chainer.Function):  # as ChainerMN's are
        def forward(self, inputs):
            return inputs

    x = chainer.Variable(numpy.ones((2, 3), 'f'))
    normalized = F.batch_normalization(x, numpy.ones(3, 'f'), numpy.zeros(3, 'f'))
    for y in (F.relu(x), normalized, Own()(x)):
        assert not multi_node.communicates(y.creator_node)


class Workers:
    """A communicator whose other workers are known beforehand."""

    def __init__(self, others):
        self.others = [numpy.array(other, float) for other in others]
        self.size = len(others) + 1
        self.mpi_comm = self
        self.messages = 0

    def Allgather(self, own, everyones):  # noqa: N802 -- mpi4py's name
        # An MPI that knows nothing of GPUs can read and write these.
        assert type(own) is type(everyones) is numpy.ndarray
        self.messages += 1
        everyones[...] = [own, *self.others]


def agree(*workers, dtype='float16', margin=MARGIN):
    """Takes (largest magnitude, scale) of each worker; the others have the same limit."""
    (magnitude, scale), *others = workers
    u_max = {'float16': 65504.0, 'float32': float(numpy.finfo('f').max)}[dtype]
    communicator = Workers([[m, s, u_max * 2.0**-margin] for m, s in others])
    return multi_node.agree(magnitude, scale, numpy.dtype(dtype), communicator, margin)


def test_it_takes_one_message_of_three_numbers():
    workers = Workers([[0.25, 1.0, 65504.0]])
    assert multi_node.agree(0.25, 1.0, numpy.dtype('e'), workers) == 1.0
    assert workers.messages == 1


def test_where_all_carry_one_scale_and_the_sum_fits_it_stays():
    assert agree((3.0, 64.0), (5.0, 64.0)) == 64


def test_the_scale_of_the_largest_true_gradient_is_taken():
    assert agree((3.0, 1.0), (5.0, 1024.0)) == agree((5.0, 1024.0), (3.0, 1.0)) == 1
    assert agree((3.0, 1024.0), (3.0, 1.0), (2.0, 64.0)) == 1


def test_a_larger_one_is_taken_as_far_as_the_sum_stays_under_one():
    assert agree((2.0**-12, 1.0), (2.0**-12, 1024.0)) == 1024
    assert agree((2.0**-6, 1.0), (2.0**-6, 1024.0)) == 32  # the sum is 2^-6 + 2^-16


def test_the_sum_keeps_the_margin():
    # 65504 / 2^4 is a little less than 2^12.
    assert agree((3000.0, 1.0), (500.0, 1.0)) == 1
    assert agree((4000.0, 1.0), (500.0, 1.0)) == agree((500.0, 1.0), (4000.0, 1.0)) == 0.5
    assert agree((4000.0, 1.0), (500.0, 1.0), margin=3) == 1
    assert agree((40.0, 1.0), (5.0, 1.0), margin=11) == 0.5
    assert agree((40000.0, 1.0), (40000.0, 1.0), margin=0) == 0.5


def test_the_largest_margin_of_the_workers_counts():
    others = Workers([[40.0, 1.0, 65504 / 2.0**10]])
    assert multi_node.agree(40.0, 1.0, numpy.dtype('e'), others) == 0.5


@pytest.mark.parametrize('other', [(0.0, 2.0**-10), (0.0, 2.0**40)])
def test_who_has_only_zeros_has_no_say_over_what_is_large(other):
    assert agree((90.0, 64.0), other) == agree(other, (90.0, 64.0)) == 64


def test_only_zeros_get_a_scale_that_one_of_them_carries():
    assert agree((0.0, 4.0), (0.0, 8.0)) == 8


@pytest.mark.parametrize('bad', [numpy.inf, numpy.nan])
def test_what_is_not_finite_gets_a_finite_scale(bad):
    for workers in ([(bad, 1.0), (3.0, 1024.0)], [(3.0, 1024.0), (bad, 1.0)]):
        assert agree(*workers) in (1, 1024)


def test_a_float32_sum_has_more_room():
    assert agree((40000.0, 1.0), (40000.0, 1.0), dtype='float32') == 1


carried = st.tuples(
    st.floats(2.0**-24, 65504, width=16), st.integers(-20, 40).map(lambda k: 2.0**k)
)


@given(st.lists(carried, min_size=2, max_size=8), st.sampled_from([0.0, 4.0]))
def test_the_sum_is_finite_however_it_is_rounded_on_the_way(workers, margin):
    common = agree(*workers, margin=margin)
    total = numpy.float16(0)
    for magnitude, scale in workers:
        total += numpy.float16(magnitude * (common / scale))  # as NCCL adds up halves
    assert total <= 65504 * 2.0**-margin
    exact = sum(magnitude / scale for magnitude, scale in workers)
    assert 2 * common * exact > 1 or common == max(scale for _, scale in workers)


class AllGather:
    """Looks like what ChainerMN's ``allgather`` leaves in a graph."""

    __module__ = 'chainermn.functions.collective_communication'

    def __init__(self, others):
        self.comm = Workers(others)

    @property
    def function(self):
        return self


def test_gradients_that_are_exchanged_keep_the_margin_of_the_pass():
    gradients = [ScaledArray(numpy.full(3, 40.0, 'e'))] * 2
    for margin, expected in ((4.0, 1.0), (10.0, 0.5)):
        function = AllGather([[40.0, 1.0, 65504.0]])
        aligned, common = multi_node.exchange_scales(function, gradients, margin)
        assert common == expected
        assert [gradient.scale for gradient in aligned] == [expected] * 2


def test_a_backward_pass_hands_on_its_margin(monkeypatch):
    found = []
    monkeypatch.setattr(multi_node, 'communicates', lambda function: True)
    monkeypatch.setattr(
        multi_node,
        'exchange_scales',
        lambda function, gradients, margin=None: (found.append(margin), (gradients, 1.0))[1],
    )
    x = chainer.Variable(numpy.ones(3, 'e'))
    backprop.ScaledBackprop(margin=7.0).run(F.sum(F.relu(x)))
    assert found == [7.0, 7.0]


@pytest.mark.gpu
def test_numbers_on_a_device_are_sent_from_the_host():
    cupy = pytest.importorskip('cupy')
    if not cuda.available:
        pytest.skip('no GPU')
    gradient = cupy.asarray([1, -3], 'e')
    scale = cupy.asarray(64, 'f')
    largest = statistics.largest_magnitude(gradient)
    communicator = Workers([[5.0, 1024.0, 65504.0]])
    assert multi_node.agree(largest, scale, gradient.dtype, communicator) == 64
