"""The scaled functions under Chainer's own backward, against Chainer's own functions."""

import chainerlp
from chainerlp import functions

import chainer
import chainer.functions as F
import numpy
import pytest

GEOMETRIES = [
    dict(),
    dict(stride=2),
    dict(pad=1),
    dict(stride=(2, 1), pad=(0, 2)),
    dict(dilate=2, pad=2),
    dict(groups=2),
    dict(groups=2, stride=2, pad=1, dilate=(1, 2)),
]


def linear_case(seed, batch_shape=(5,), bias=True):
    rng = numpy.random.RandomState(seed)
    x = rng.standard_normal(batch_shape + (7,))
    W = rng.standard_normal((4, 7))
    b = rng.standard_normal(4) if bias else None
    return x, W, b


def convolution_case(seed, groups=1, bias=True):
    rng = numpy.random.RandomState(seed)
    x = rng.standard_normal((3, 4, 9, 8))
    W = rng.standard_normal((6, 4 // groups, 3, 2))
    b = rng.standard_normal(6) if bias else None
    return x, W, b


def run(function, arrays, dtype, **kwargs):
    """Returns y and the gradients of all inputs, for a fixed gradient of y."""
    inputs = [None if a is None else chainer.Variable(a.astype(dtype)) for a in arrays]
    y = function(*inputs, **kwargs)
    rng = numpy.random.RandomState(9)
    y.grad = rng.standard_normal(y.shape).astype(numpy.float16).astype(dtype)
    y.backward()
    return [y.array] + [v.grad for v in inputs if v is not None]


def assert_identical(actual, expected):
    for a, e in zip(actual, expected):
        assert a.dtype == e.dtype and a.shape == e.shape
        numpy.testing.assert_array_equal(a, e)


def assert_rounded_once(actual, exact, terms):
    """Within one rounding to float16 of a product whose factors are float16 and sum is float32."""
    for a, e in zip(actual, exact):
        assert a.dtype == numpy.float16
        # 2^-11 relative for the rounding; float32 sums err by up to terms * 2^-24 of the sum of
        # magnitudes, which for these standard normal factors is at most 10 per term.
        bound = numpy.abs(e) * 2.0**-11 + 2.0**-25 + terms * terms * 10 * 2.0**-24
        assert (numpy.abs(a - e) <= bound).all()


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('batch_shape, n_batch_axes', [((5,), 1), ((1,), 1), ((2, 3), 2)])
@pytest.mark.parametrize('dtype', [numpy.float32, numpy.float64])
def test_linear_is_chainers_bit_for_bit(dtype, batch_shape, n_batch_axes, bias):
    case = linear_case(0, batch_shape, bias)
    kwargs = dict(n_batch_axes=n_batch_axes)
    expected = run(F.linear, case, dtype, **kwargs)
    assert_identical(run(functions.scaled_linear, case, dtype, **kwargs), expected)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('geometry', GEOMETRIES, ids=str)
@pytest.mark.parametrize('dtype', [numpy.float32, numpy.float64])
def test_convolution_is_chainers_bit_for_bit(dtype, geometry, bias):
    case = convolution_case(0, geometry.get('groups', 1), bias)
    expected = run(F.convolution_2d, case, dtype, **geometry)
    assert_identical(run(functions.scaled_convolution_2d, case, dtype, **geometry), expected)


@pytest.mark.parametrize('bias', [True, False])
def test_linear_in_float16_rounds_the_float32_product_once(bias):
    case = [None if a is None else a.astype(numpy.float16) for a in linear_case(1, bias=bias)]
    exact = run(F.linear, case, numpy.float64)
    assert_rounded_once(run(functions.scaled_linear, case, numpy.float16), exact, terms=8)


@pytest.mark.parametrize('geometry', GEOMETRIES, ids=str)
def test_convolution_in_float16_rounds_the_float32_product_once(geometry):
    case = [a.astype(numpy.float16) for a in convolution_case(1, geometry.get('groups', 1))]
    exact = run(F.convolution_2d, case, numpy.float64, **geometry)
    terms = 3 * 9 * 8  # the bias gradient sums over batch and positions
    actual = run(functions.scaled_convolution_2d, case, numpy.float16, **geometry)
    assert_rounded_once(actual, exact, terms)


def test_trailing_axes_are_taken_as_one():
    x, W, b = linear_case(0)
    y = functions.scaled_linear(x.reshape(5, 7, 1).astype('f'), W.astype('f'), b.astype('f'))
    assert_identical([y.array], [F.linear(x.astype('f'), W.astype('f'), b.astype('f')).array])


def test_no_batch_axis_is_an_error():
    x, W, b = (a.astype('f') for a in linear_case(0))
    with pytest.raises(ValueError, match='n_batch_axes must be 1 or more, not 0'):
        functions.scaled_linear(x, W, b, n_batch_axes=0)


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32])
def test_an_input_that_is_too_small_is_chainers_error(dtype):
    x, W, _ = convolution_case(0)
    with pytest.raises(AssertionError, match='Height in the output should be positive'):
        functions.scaled_convolution_2d(x[:, :, :2].astype(dtype), W.astype(dtype))


def test_mismatched_shapes_are_chainers_error():
    x, W, _ = linear_case(0)
    with pytest.raises(chainer.utils.type_check.InvalidType):
        functions.scaled_linear(x.astype('e'), W[:, :3].astype('e'))


def test_in_float16_mismatched_channels_of_an_nd_convolution_are_an_error():
    x, W = numpy.zeros((2, 4, 8), 'e'), numpy.zeros((6, 3, 3), 'e')
    with pytest.raises(ValueError, match=r'groups=2 is for 6 input channels .* has 4'):
        functions.scaled_convolution_nd(x, W, groups=2)


@pytest.mark.parametrize(
    'function', [functions.scaled_deconvolution_2d, functions.scaled_deconvolution_nd]
)
@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32])
def test_a_deconvolution_without_output_is_chainers_error(function, dtype):
    x, W = numpy.zeros((2, 4, 1, 1), dtype), numpy.zeros((4, 3, 2, 2), dtype)
    with pytest.raises((AssertionError, RuntimeError), match='[Oo]utput.* (should|must) be positi'):
        function(x, W, pad=1)


@pytest.mark.parametrize('weight_dtype', [numpy.float16, numpy.float32])
def test_gradients_have_the_dtypes_of_what_they_belong_to(weight_dtype):
    x, W, b = linear_case(0)
    inputs = [chainer.Variable(a.astype(d)) for a, d in zip((x, W, b), ('e', weight_dtype, 'e'))]
    y = functions.scaled_linear(*inputs)
    y.grad = numpy.ones_like(y.array)
    y.backward()
    assert [v.grad.dtype for v in inputs] == [numpy.float16, weight_dtype, numpy.float16]


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32])
def test_double_backprop_is_possible_under_plain_backward(dtype):
    x, W, b = (chainer.Variable(a.astype(dtype)) for a in linear_case(0))
    y = functions.scaled_linear(x, W, b)
    (gx,) = chainer.grad([y], [x], enable_double_backprop=True)
    (gW,) = chainer.grad([F.sum(gx)], [W])
    # gx = 1 W, so the sum of gx grows by the batch size with each weight.
    numpy.testing.assert_array_equal(gW.array, numpy.full(W.shape, 5, dtype))


def test_an_unbatched_empty_input_gives_an_empty_output():
    _, W, b = linear_case(0)
    x = chainer.Variable(numpy.zeros((0, 7), numpy.float16))
    y = functions.scaled_linear(x, W.astype('e'), b.astype('e'))
    chainerlp.backward(F.sum(y))
    assert y.shape == (0, 4) and x.grad.shape == (0, 7)


def test_functions_are_numbered_in_the_order_of_the_forward_pass():
    x, W, b = (a.astype('f') for a in linear_case(0))
    first = functions.scaled_linear(x, W, b).creator_node
    second = functions.scaled_linear(x, W, b).creator_node
    assert first.serial < second.serial
