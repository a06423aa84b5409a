from experiments.models.normalize import Normalize

import chainer
import numpy
import pytest


@pytest.fixture
def x():
    return numpy.random.RandomState(0).randn(2, 5, 3, 4).astype(numpy.float32)


def test_the_channels_of_each_position_get_a_norm_of_20(x):
    y = Normalize(5)(x).array
    norm = numpy.sqrt((y.astype(float) ** 2).sum(axis=1))
    numpy.testing.assert_allclose(norm, numpy.full((2, 3, 4), 20.0), rtol=1e-6)
    numpy.testing.assert_allclose(y / y[:, :1], x / x[:, :1], rtol=1e-5)  # in proportion


def test_its_gradients_are_those_of_the_formula(x):
    link = Normalize(5)
    link.scale.array[...] = numpy.arange(1, 6)
    x = chainer.Variable(x)
    gy = numpy.random.RandomState(1).randn(*x.shape).astype(numpy.float32)
    y = link(x)
    link.cleargrads()
    y.grad = gy
    y.backward()
    # y = s u with u = x / |x|: the gradient of s is the sum of u gy, that of x is the part of
    # s gy across u, divided by |x|.
    x64, scale = x.array.astype(float), numpy.arange(1.0, 6.0)[:, None, None]
    norm = numpy.sqrt((x64**2).sum(axis=1, keepdims=True))
    u = x64 / norm
    along = (u * scale * gy).sum(axis=1, keepdims=True)
    # Float32 sums of up to 24 terms: 24 * 2^-24 of the largest ones, some of which cancel.
    numpy.testing.assert_allclose(x.grad, (scale * gy - u * along) / norm, rtol=1e-5, atol=1e-5)
    numpy.testing.assert_allclose(link.scale.grad, (u * gy).sum(axis=(0, 2, 3)), rtol=1e-5)


def test_squares_that_float16_cannot_hold_are_no_trouble():
    x = numpy.full((1, 512, 1, 1), 300, numpy.float16)  # 300^2 alone is over 65504
    with chainer.using_config('dtype', chainer.mixed16):
        link = Normalize(512)
    y = link(x)
    assert y.dtype == numpy.float16 and link.scale.dtype == numpy.float32
    # 20 / sqrt(512), rounded to float16.
    numpy.testing.assert_allclose(y.array, 20 / 512**0.5, rtol=2**-11)


def test_where_all_channels_are_zero_the_output_is_zero_and_the_gradient_finite():
    x = chainer.Variable(numpy.zeros((1, 3, 2, 2), numpy.float32))
    y = Normalize(3)(x)
    y.grad = numpy.ones_like(y.array)
    y.backward()
    assert not y.array.any() and numpy.isfinite(x.grad).all()


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_its_scale_has_the_configured_dtype(dtype):
    with chainer.using_config('dtype', numpy.dtype(dtype)):
        assert Normalize(3).scale.dtype == dtype
