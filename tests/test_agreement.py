"""Workers agree on the largest scale at which the sum of what they have fits."""

from chainerlp import agreement

import numpy
import pytest
from chainer.backends import cuda
from hypothesis import given
from hypothesis import strategies as st


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


def agree(*workers, dtype='float16'):
    """Takes (largest magnitude, scale) of each worker for one gradient."""
    (magnitude, scale), *others = workers
    communicator = Workers([[[m], [0.0 if s is None else s]] for m, s in others])
    return agreement.agree([magnitude], [scale], [numpy.dtype(dtype)], communicator)[0]


def test_it_takes_one_message_of_two_numbers_a_gradient():
    workers = Workers([numpy.ones((2, 3))])
    scales = agreement.agree([1.0] * 3, [1.0] * 3, [numpy.dtype('e')] * 3, workers)
    assert scales == [1.0] * 3
    assert workers.messages == 1


def test_where_all_carry_one_scale_and_the_sum_fits_it_stays():
    assert agree((3.0, 64.0), (5.0, 64.0)) == 64


def test_the_largest_scale_is_taken_if_the_sum_fits():
    assert agree((3.0, 1.0), (5.0, 1024.0)) == 1024


def test_else_the_largest_power_of_two_at_which_it_fits():
    # True gradients of 8 and 8: 16 * 2^11 fits under 65504, 16 * 2^12 does not.
    assert agree((8.0, 1.0), (8 * 2.0**12, 2.0**12)) == 2.0**11


def test_it_may_be_smaller_than_all_that_are_carried():
    assert agree((40000.0, 1.0), (40000.0, 1.0)) == 0.5


@pytest.mark.parametrize('other', [(0.0, 2.0**-10), (0.0, None), (0.0, 2.0**40)])
def test_who_has_no_gradient_or_only_zeros_has_no_say(other):
    assert agree((3.0, 64.0), other) == agree(other, (3.0, 64.0)) == 64


def test_without_any_gradient_there_is_no_scale():
    assert agree((0.0, None), (0.0, None)) is None


def test_only_zeros_get_a_scale_that_one_of_them_carries():
    assert agree((0.0, 4.0), (0.0, None), (0.0, 8.0)) in (4, 8)


@pytest.mark.parametrize('bad', [numpy.inf, numpy.nan])
def test_what_is_not_finite_gets_a_finite_scale(bad):
    assert agree((bad, 1.0), (3.0, 1024.0)) == agree((3.0, 1024.0), (bad, 1.0)) == 1


def test_a_float32_sum_has_more_room():
    assert agree((40000.0, 1.0), (40000.0, 2.0**20), dtype='float32') == 2.0**20


carried = st.tuples(
    st.floats(2.0**-24, 65504, width=16), st.integers(-20, 40).map(lambda k: 2.0**k)
)


@given(st.lists(carried, min_size=2, max_size=8))
def test_the_sum_is_finite_however_it_is_rounded_on_the_way(workers):
    common = agree(*workers)
    assert all(agree(*workers[k:], *workers[:k]) == common for k in range(len(workers)))
    total = numpy.float16(0)
    for magnitude, scale in workers:
        total += numpy.float16(magnitude * (common / scale))  # as NCCL adds up halves
    assert numpy.isfinite(total)
    largest = max(scale for _, scale in workers)
    # Nor is it smaller than it has to be, but for the roundings that are allowed for.
    exact = sum(magnitude / scale for magnitude, scale in workers)
    assert common == largest or exact * 2 * common > 65504 * (1 - 2.0**-11) ** len(workers)


@pytest.mark.gpu
def test_numbers_on_a_device_are_sent_from_the_host():
    cupy = pytest.importorskip('cupy')
    if not cuda.available:
        pytest.skip('no GPU')
    gradient = cupy.asarray([1, -3], 'e')
    scale = cupy.asarray(64, 'f')
    largest = agreement.largest_magnitude(gradient)
    communicator = Workers([[[5.0], [1024.0]]])
    assert agreement.agree([largest], [scale], [gradient.dtype], communicator) == [1024]
