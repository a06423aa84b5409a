"""Which positions of gy an element of gx sums over, against Chainer's own products of ones."""

import math

from chainerlp import geometry
from chainerlp.window import of_each_position

import chainer
import chainer.functions as F
import numpy
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

some = settings(deadline=None, max_examples=60)


def gradient_of(function, gy, W, x_size, groups, **kwargs):
    """Returns gx of a layer whose weights are W, in float64."""
    x = chainer.Variable(numpy.zeros((len(gy), groups, *x_size)))
    y = function(x, W, groups=groups, **kwargs)
    (gx,) = chainer.grad([y], [x], [gy])
    return gx.array


@st.composite
def convolutions(draw):
    """A convolution of one to three axes with one channel a group, and the spatial size of x."""
    axes = draw(st.integers(1, 3))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    layer = geometry.Convolution(each(1, 3), each(0, 2), each(1, 2), draw(st.integers(1, 3)))
    return layer, each(1, 3), each(1, 7)


@some
@given(convolutions())
def test_it_is_the_layers_own_with_weights_of_one(drawn):
    layer, kernel, size = drawn
    sizes = zip(size, kernel, layer.stride, layer.pad, layer.dilate)
    out = tuple((n + 2 * p - (k - 1) * d - 1) // s + 1 for n, k, s, p, d in sizes)
    assume(min(out) > 0)
    shape = (2, layer.groups)
    gy = numpy.random.RandomState(0).randint(0, 9, shape + out).astype(float)
    W = numpy.ones((layer.groups, 1, *kernel))
    arguments = dict(stride=layer.stride, pad=layer.pad, dilate=layer.dilate)
    window = layer.window(gy.shape, W.shape, size)
    expected = gradient_of(F.convolution_nd, gy, W, size, layer.groups, **arguments)
    assert (window.sums(gy) == expected).all()  # of small integers, exactly

    # The transpose: what was gy is x.
    transposed = geometry.Deconvolution(layer, size)
    gy = numpy.random.RandomState(1).randint(0, 9, shape + size).astype(float)
    window = transposed.window(gy.shape, W.shape, out)
    arguments['outsize'] = size
    expected = gradient_of(F.deconvolution_nd, gy, W, out, layer.groups, **arguments)
    assert (window.sums(gy) == expected).all()


def test_it_is_that_of_a_local_convolution():
    gy = numpy.random.RandomState(0).randint(0, 9, (2, 1, 3, 4)).astype(float)
    layer, W = geometry.LocalConvolution2D((2, 1)), numpy.ones((1, 3, 4, 1, 3, 2))
    x = chainer.Variable(numpy.zeros((2, 1, 8, 5)))
    (gx,) = chainer.grad([F.local_convolution_2d(x, W, stride=(2, 1))], [x], [chainer.Variable(gy)])
    assert (layer.window(gy.shape, W.shape, (8, 5)).sums(gy) == gx.array).all()


@pytest.mark.parametrize('size', [(3,), (3, 4), (2, 3, 4)])
def test_it_is_each_position_itself_where_gy_is_what_is_rounded(size):
    array = numpy.arange(math.prod(size), dtype=float).reshape(1, 1, *size)
    assert (of_each_position(size).sums(array) == array).all()


def test_rows_have_none_nor_do_more_axes_than_three():
    assert of_each_position(()) is None
    assert of_each_position((1, 2, 3, 4)) is None
    assert geometry.Linear().window((2, 3), (3, 4), ()) is None
    layer = geometry.Convolution((1,) * 4, (0,) * 4, (1,) * 4)
    assert layer.window((1, 1, 2, 2, 2, 2), (1, 1, 1, 1, 1, 1), (2, 2, 2, 2)) is None
