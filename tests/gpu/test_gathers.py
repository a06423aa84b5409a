"""Gradients that many places add to, on a GPU with atomic additions in fp16."""

from tests.gpu.agreement import CPU, UNIT, Case, assert_agrees, outcome

import chainer.functions as F
import numpy
import pytest

# CuPy has another name for scatter_add, which Chainer cannot know.
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings('ignore:.*scatter_add:DeprecationWarning'),
]

# Some rows are taken five times, odd and even ones; a vector of three begins at odd addresses.
TAKEN = numpy.array([0, 3, 3, 1, 3, 6, 3, 3, 0, 5], 'i')


def rows(x):
    return F.get_item(x, x.xp.asarray(TAKEN))


def scattered(x, y):
    return F.scatter_add(x, x.xp.asarray(TAKEN), y)


CASES = {
    'embed_id': Case(lambda t, W: F.embed_id(t, W), (TAKEN, (7, 3)), 5, linear=True),
    'embed_id with padding': Case(
        lambda t, W: F.embed_id(t, W, ignore_label=3), (TAKEN, (7, 3)), 2, linear=True
    ),
    'rows': Case(rows, ((7, 3),), 5, linear=True),
    'a slice': Case(lambda x: x[1::2, ::-1], ((7, 3),), 0),
    'scatter_add': Case(scattered, ((7, 3), (10, 3)), 6, linear=True),
    'permutate': Case(
        lambda x: F.permutate(x, numpy.array([2, 0, 1], 'i')), ((3, 5),), 0
    ),
    'select_item': Case(
        lambda x: F.select_item(x, x.xp.asarray([2, 0, 2, 1], dtype='i')), ((4, 3),), 0
    ),
    'as_strided': Case(
        lambda x: F.as_strided(x, (5, 3), (1, 1), 0), ((7,),), 4, linear=True
    ),
}  # fmt: skip


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_values_and_gradients_are_those_of_the_cpu(device, case, dtype):
    assert_agrees(case, dtype, device)


def test_images_are_resized(device):
    # Chainer does it in float32 only. Each of at most 9 pixels adds a weighted one.
    x = numpy.random.RandomState(0).standard_normal((2, 3, 4, 4)).astype('f')
    gy = numpy.random.RandomState(1).standard_normal((2, 3, 9, 7)).astype('f')
    results = [
        outcome(lambda x: F.resize_images(x, (9, 7)), [x], where, [gy]) for where in (CPU, device)
    ]
    for expected, actual in zip(*results):
        bound = 16 * UNIT['float32'] * numpy.abs(expected).max()
        numpy.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
@pytest.mark.parametrize('units', [1, 3, 4])
def test_no_addition_is_lost_when_thousands_meet(device, units, dtype):
    # 2048 ones are the most that fp16 can count, in whatever order.
    t = numpy.tile(numpy.arange(5, dtype='i'), 2048)
    W, gy = numpy.zeros((5, units), dtype), numpy.ones((t.size, units), dtype)
    _, gW = outcome(lambda t, W: F.embed_id(t, W), [t, W], device, [gy])
    assert gW.dtype == dtype
    assert gW.tolist() == [[2048.0] * units] * 5


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_an_array_is_added_to_at_places_without_its_neighbours(device, dtype):
    x = device.xp.zeros(9, dtype)
    y = F.scatter_add(x, device.send(numpy.array([1, 1, 7], 'i')), device.xp.ones(3, dtype)).array
    assert CPU.send(y).tolist() == [0, 2, 0, 0, 0, 0, 0, 1, 0]
