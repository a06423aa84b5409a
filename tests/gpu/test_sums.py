"""Sums of fp16 numbers on a GPU are taken in float32, whoever takes them."""

import math

from chainerlp.compat import cupy14
from chainerlp.functions import scaled_convolution_2d, scaled_linear
from tests.gpu.agreement import CPU, UNIT

import chainer.functions as F
import numpy
import pytest

pytestmark = pytest.mark.gpu


@pytest.fixture(params=['CUB', 'own'])
def reductions(request, device):
    """Has CuPy reduce with the library CUB, which it does by default, or with its own kernels."""
    from cupy import _core

    chosen = ['cub'] if request.param == 'CUB' else []
    before = _core.get_reduction_accelerators(), _core.get_routine_accelerators()
    _core.set_reduction_accelerators(chosen)
    _core.set_routine_accelerators(chosen)
    cupy14.sum_halves_in_float32()
    yield
    _core.set_reduction_accelerators(before[0])
    _core.set_routine_accelerators(before[1])


def test_a_product_of_8192_terms_is_exact(device):
    # 8192 · 2^-6 · 2^-6 = 2. In fp16 the sum would stick at 2^-12 · 2^11 = 0.5.
    x = device.send(numpy.full((3, 8192), 2.0**-6, 'e'))
    W = device.send(numpy.full((5, 8192), 2.0**-6, 'e'))
    y = F.linear(x, W).array
    assert y.dtype == 'float16'
    assert CPU.send(y).tolist() == [[2.0] * 5] * 3


def test_a_convolution_over_8192_terms_is_exact(device):
    x = device.send(numpy.full((2, 2048, 4, 4), 2.0**-6, 'e'))
    W = device.send(numpy.full((3, 2048, 2, 2), 2.0**-6, 'e'))
    y = F.convolution_2d(x, W).array
    assert y.dtype == 'float16'
    assert CPU.send(y).tolist() == numpy.full((2, 3, 3, 3), 2.0).tolist()


@pytest.mark.parametrize('b', [0.0, 2.0**-20])
def test_a_product_is_not_rounded_before_its_bias_is_added(device, b):
    # 1 + 2^-11 is a tie, and alone it rounds to 1.
    x, W = numpy.array([[1, 2.0**-11]], 'e'), numpy.ones((1, 2), 'e')
    b = numpy.array([b], 'e')
    expected = scaled_linear(x, W, b).array
    assert expected[0, 0] == 1 + (b[0] > 0) * 2.0**-10
    y = scaled_linear(*map(device.send, (x, W, b))).array
    assert y.dtype == 'float16' and CPU.send(y) == expected
    images = x.reshape(1, 2, 1, 1), W.reshape(1, 2, 1, 1), b
    y = scaled_convolution_2d(*map(device.send, images)).array
    assert y.dtype == 'float16' and CPU.send(y) == expected


def test_terms_that_cancel_leave_what_they_do_in_float32(device):
    random = numpy.random.RandomState(0)
    x, W = random.standard_normal((16, 4096)).astype('e'), random.standard_normal((8, 4096))
    W = W.astype('e')
    y = CPU.send(F.linear(device.send(x), device.send(W)).array)
    exact = x.astype('d').dot(W.T.astype('d'))
    magnitude = abs(x.astype('d')).dot(abs(W.T.astype('d')))
    bound = UNIT['float16'] * abs(exact) + 4096 * UNIT['float32'] * magnitude
    assert numpy.all(abs(y - exact) <= bound)


@pytest.mark.parametrize('axis', [None, -1, (1, 2)])
@pytest.mark.usefixtures('reductions')
def test_equal_numbers_add_up_exactly(device, axis):
    # 2^17 terms of 2^-3 are 2^14; in fp16 the sum would stick at 2^-3 · 2^11 = 2^8.
    x = device.send(numpy.full((2, 2**8, 2**9), 2.0**-4, 'e'))
    axes = range(3) if axis is None else numpy.atleast_1d(axis)
    expected = 2.0**-4 * math.prod(x.shape[i] for i in axes)
    total = x.sum(axis=axis)
    assert total.dtype == 'float16'
    assert numpy.all(CPU.send(total) == expected)


@pytest.mark.parametrize('shape', [(100_000,), (100, 1000), (1000, 100), (33, 7, 65)])
@pytest.mark.parametrize('axis', [None, -1, 0])
@pytest.mark.usefixtures('reductions')
def test_a_sum_is_rounded_once(device, shape, axis):
    x = numpy.random.RandomState(0).uniform(0, 2.0**-6, shape).astype('e')
    total = CPU.send(device.send(x).sum(axis=axis))
    exact = x.astype('d').sum(axis=axis)
    terms = x.size // exact.size
    relative = UNIT['float16'] + terms * UNIT['float32']
    assert numpy.all(abs(total - exact) <= relative * exact)


@pytest.mark.usefixtures('reductions')
def test_moments_that_are_asked_for_in_float32_are_float32s(device):
    x = (4 + numpy.random.RandomState(0).standard_normal((64, 8, 32, 32))).astype('e')
    wide = x.astype('d')
    sent = device.send(x)
    axis, terms = (0, 2, 3), 64 * 32 * 32
    mean, variance = sent.mean(axis, dtype='f'), sent.var(axis, dtype='f')
    assert mean.dtype == variance.dtype == 'float32'
    # A mean is off by at most terms · 2^-24 of E|x|, and a variance by as much of E[x²], and twice.
    relative = terms * UNIT['float32']
    assert numpy.all(abs(CPU.send(mean) - wide.mean(axis)) <= relative * abs(wide).mean(axis))
    bound = 4 * relative * (wide**2).mean(axis)
    assert numpy.all(abs(CPU.send(variance) - wide.var(axis)) <= bound)
    assert numpy.all(bound < 0.1 * 17 * 4)


@pytest.mark.usefixtures('reductions')
def test_extremes_and_counts_are_exact(device):
    x = numpy.random.RandomState(0).standard_normal(100_003).astype('e')
    x[:3000] = 0
    sent = device.send(x)
    assert float(sent.max()) == x.max()
    assert float(sent.min()) == x.min()
    assert int((sent == 0).sum()) == (x == 0).sum()
    assert int(device.xp.count_nonzero(sent)) == numpy.count_nonzero(x)
    assert bool(device.xp.isfinite(sent).all())
