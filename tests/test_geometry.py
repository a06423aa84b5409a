"""The three products of a layer, against Chainer's own functions in float64."""

import dataclasses

from chainerlp import geometry

import chainer
import chainer.functions as F
import numpy
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.filterwarnings('error')

some = settings(deadline=None, max_examples=60)

# By how much a float32 sum of at most 60 products of standard normal numbers may be off, in any
# order: 60 additions, each off by 2^-24 of a sum that stays well under 100.
ANY_ORDER = 60 * 100 * 2.0**-24


def random(seed, *shape):
    """Standard normal numbers that float16 has too, as a layer hands them in."""
    rng = numpy.random.RandomState(seed)
    return rng.standard_normal(shape).astype(numpy.float16).astype(numpy.float32)


def by_chainer(function, x, W, gy, **kwargs):
    """Returns y, gx and gW in float64."""
    x, W, gy = (chainer.Variable(a.astype(numpy.float64)) for a in (x, W, gy))
    y = function(x, W, **kwargs)
    gx, gW = chainer.grad([y], [x, W], [gy])
    return y.array, gx.array, gW.array


def assert_accumulated_in_float32(actual, exact, magnitude, terms):
    """Within what float32 sums of ``terms`` products may be off.

    Each product and each addition errs by 2^-24 relative to a partial sum, which the sum of the
    terms' magnitudes bounds: (terms + 1) 2^-24 of that in all.
    """
    assert actual.dtype == numpy.float32
    assert actual.shape == exact.shape
    error = numpy.abs(actual - exact)
    assert (error <= (terms + 1) * 2.0**-24 * magnitude).all()


def assert_products(function, actual, x, W, gy, terms, **kwargs):
    exact = by_chainer(function, x, W, gy, **kwargs)
    magnitude = by_chainer(function, abs(x), abs(W), abs(gy), **kwargs)
    for one in zip(actual, exact, magnitude, terms):
        assert_accumulated_in_float32(*one)


@dataclasses.dataclass(frozen=True)
class Case:
    geometry: geometry.Convolution
    batch: int
    in_channels: int
    out_channels: int
    kernel: tuple
    in_size: tuple
    out_size: tuple


@st.composite
def cases(draw):
    def pair(low, high):
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    groups = draw(st.integers(1, 3))
    stride, pad, dilate, kernel = pair(1, 3), pair(0, 2), pair(1, 2), pair(1, 3)
    in_size = pair(3, 9)
    out_size = tuple(
        (size + 2 * p - (k - 1) * d - 1) // s + 1
        for size, k, s, p, d in zip(in_size, kernel, stride, pad, dilate)
    )
    assume(min(out_size) > 0)
    return Case(
        geometry.Convolution(stride, pad, dilate, groups),
        draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 2)),
        kernel,
        in_size,
        out_size,
    )


def arrays_of(case):
    x = random(1, case.batch, case.in_channels, *case.in_size)
    W = random(2, case.out_channels, case.in_channels // case.geometry.groups, *case.kernel)
    gy = random(3, case.batch, case.out_channels, *case.out_size)
    return x, W, gy


def chainer_arguments(layer):
    return dict(stride=layer.stride, pad=layer.pad, dilate=layer.dilate, groups=layer.groups)


@some
@given(cases())
def test_convolution_is_chainers(case):
    layer = case.geometry
    x, W, gy = arrays_of(case)
    for array in (x, W, gy):
        array.flags.writeable = False  # what it reads, it leaves alone
    actual = (
        layer.output(x, W),
        layer.data_gradient(gy, W, case.in_size),
        layer.weight_gradient(x, gy, W.shape),
    )
    terms = (W[0].size, layer.terms(W.shape), gy[:, 0].size)
    assert_products(F.convolution_2d, actual, x, W, gy, terms=terms, **chainer_arguments(layer))


@some
@given(cases())
def test_without_a_size_the_data_gradient_has_the_smallest_that_fits(case):
    layer = case.geometry
    x, W, gy = arrays_of(case)
    smallest = tuple(
        (size - 1) * s + (k - 1) * d + 1 - 2 * p
        for size, k, s, p, d in zip(
            case.out_size, case.kernel, layer.stride, layer.pad, layer.dilate
        )
    )
    assume(min(smallest) > 0)
    gx = layer.data_gradient(gy, W)
    assert gx.shape[2:] == smallest
    exact = by_chainer(
        F.convolution_2d,
        x[:, :, : smallest[0], : smallest[1]],
        W,
        gy,
        **chainer_arguments(layer),
    )
    numpy.testing.assert_array_equal(gx, layer.data_gradient(gy, W, smallest))
    numpy.testing.assert_allclose(gx, exact[1], rtol=0, atol=ANY_ORDER)


@pytest.mark.parametrize('groups', [1, 2])
def test_terms_are_the_products_summed_into_an_element_of_gx(groups):
    layer = geometry.Convolution(groups=groups)
    W = numpy.ones((6, 4 // groups, 3, 2), numpy.float32)
    gy = numpy.ones((1, 6, 8, 8), numpy.float32)
    assert layer.terms(W.shape) == layer.data_gradient(gy, W).max() == 6 // groups * 3 * 2


@pytest.mark.parametrize('batch, n_in, n_out', [(5, 7, 4), (1, 1, 1), (3, 1, 8), (200, 30, 20)])
def test_linear_is_chainers(batch, n_in, n_out):
    x, W, gy = random(1, batch, n_in), random(2, n_out, n_in), random(3, batch, n_out)
    for array in (x, W, gy):
        array.flags.writeable = False
    actual = (
        geometry.Linear().output(x, W),
        geometry.Linear().data_gradient(gy, W),
        geometry.Linear().weight_gradient(x, gy),
    )
    assert_products(F.linear, actual, x, W, gy, terms=(n_in, n_out, batch))


ND_CASES = [
    (1, dict()),
    (1, dict(stride=(2,), pad=(1,), dilate=(2,), groups=2)),
    (3, dict()),
    (3, dict(stride=(2, 1, 1), pad=(0, 1, 1), dilate=(1, 2, 1), groups=2)),
    (4, dict()),
    (2, dict(stride=(2, 3), pad=(1, 0), groups=2)),
    (2, dict(stride=(2, 2), cover_all=True)),
    (1, dict(stride=(2,), cover_all=True)),
]


def nd_geometry(ndim, arguments):
    plain = dict(stride=(1,) * ndim, pad=(0,) * ndim, dilate=(1,) * ndim)
    return geometry.Convolution(**{**plain, **arguments})


@pytest.mark.parametrize('ndim, arguments', ND_CASES, ids=str)
def test_convolution_of_any_number_of_dimensions_is_chainers(ndim, arguments):
    layer = nd_geometry(ndim, arguments)
    x = random(1, 2, 4, *(8, 5, 4, 3)[:ndim])
    W = random(2, 6, 4 // layer.groups, *(3, 2, 2, 2)[:ndim])
    y = F.convolution_nd(x, W, **arguments).array
    gy = random(3, *y.shape)
    actual = (
        layer.output(x, W),
        layer.data_gradient(gy, W, x.shape[2:]),
        layer.weight_gradient(x, gy, W.shape),
    )
    terms = (W[0].size, layer.terms(W.shape), gy[:, 0].size)
    assert_products(F.convolution_nd, actual, x, W, gy, terms=terms, **arguments)


@pytest.mark.parametrize('ndim, arguments', ND_CASES, ids=str)
@pytest.mark.parametrize('has_size', [True, False])
def test_deconvolution_is_chainers(ndim, arguments, has_size):
    transpose = nd_geometry(ndim, arguments)
    arguments = {key: value for key, value in arguments.items() if key != 'cover_all'}
    x = random(1, 2, 4, *(4, 3, 3, 2)[:ndim])
    W = random(2, 4, 6 // transpose.groups, *(3, 2, 2, 2)[:ndim])
    smallest = transpose.smallest_input(x.shape[2:], W.shape[2:])
    size = None
    if transpose.cover_all:  # the same number of positions, the last of them beyond the edge
        size = tuple(s - 1 for s in smallest)
    elif has_size:
        size = tuple(s + d - 1 for s, d in zip(smallest, transpose.stride))
    layer = geometry.Deconvolution(transpose, size)
    gy = random(3, 2, 6, *(size or smallest))
    actual = (
        layer.output(x, W),
        layer.data_gradient(gy, W),
        layer.weight_gradient(x, gy, W.shape),
    )
    terms = (4 * W[0, 0].size, layer.terms(W.shape), x[:, 0].size)
    assert_products(F.deconvolution_nd, actual, x, W, gy, terms=terms, outsize=size, **arguments)


@pytest.mark.parametrize('groups', [1, 2])
def test_terms_of_a_deconvolution_and_its_weight_by_output(groups):
    layer = geometry.Deconvolution(geometry.Convolution(groups=groups))
    W, gy = random(1, 4, 6 // groups, 3, 2), random(2, 1, 6, 8, 8)
    ones = layer.data_gradient(numpy.ones_like(gy), numpy.ones_like(W))
    assert layer.terms(W.shape) == ones.max() == 6 // groups * 3 * 2
    by_output = layer.weight_by_output(W)
    assert by_output.shape == (6, 4 // groups, 3, 2)
    for channel in range(6):
        alone = numpy.zeros_like(gy)
        alone[0, channel, 4, 4] = 1  # reaches gx through the weights of its own channel only
        gx = layer.data_gradient(alone, W)
        assert set(gx[gx != 0]) == set(by_output[channel].reshape(-1))


@pytest.mark.parametrize('stride', [(1, 1), (2, 3)])
def test_local_convolution_is_chainers(stride):
    layer = geometry.LocalConvolution2D(stride)
    W = random(2, 5, 3, 2, 4, 3, 2)  # 5 channels at 3 x 2 positions
    x = random(1, 2, 4, 2 * stride[0] + 3, stride[1] + 2)
    gy = random(3, 2, 5, 3, 2)
    actual = (
        layer.output(x, W),
        layer.data_gradient(gy, W, x.shape[2:]),
        layer.weight_gradient(x, gy, W.shape),
    )
    terms = (4 * 3 * 2, layer.terms(W.shape), 2)
    assert_products(F.local_convolution_2d, actual, x, W, gy, terms=terms, stride=stride)


def test_terms_of_a_local_convolution():
    W = numpy.ones((5, 7, 7, 4, 3, 2), numpy.float32)
    gy = numpy.ones((1, 5, 7, 7), numpy.float32)
    layer = geometry.LocalConvolution2D()
    assert layer.terms(W.shape) == layer.data_gradient(gy, W, (9, 8)).max() == 5 * 3 * 2


def test_transposed_arrays_are_as_good_as_contiguous_ones():
    x, W, gy = random(1, 2, 4, 6, 5), random(2, 6, 2, 3, 2), random(3, 2, 6, 4, 4)
    layer = geometry.Convolution(groups=2)
    x_, W_, gy_ = (numpy.asfortranarray(a) for a in (x, W, gy))
    pairs = [
        (layer.output(x_, W_), layer.output(x, W)),
        (layer.data_gradient(gy_, W_), layer.data_gradient(gy, W)),
        (layer.weight_gradient(x_, gy_, W.shape), layer.weight_gradient(x, gy, W.shape)),
    ]
    for actual, expected in pairs:
        numpy.testing.assert_allclose(actual, expected, rtol=0, atol=ANY_ORDER)


@pytest.mark.parametrize('layer', [geometry.Convolution(), geometry.Convolution(groups=2)])
def test_an_empty_batch_gives_empty_data_and_a_zero_weight_gradient(layer):
    W = numpy.ones((4, 4 // layer.groups, 3, 3), numpy.float32)
    x, gy = numpy.ones((0, 4, 5, 5), numpy.float32), numpy.ones((0, 4, 3, 3), numpy.float32)
    assert layer.output(x, W).shape == (0, 4, 3, 3)
    assert layer.data_gradient(gy, W).shape == (0, 4, 5, 5)
    gW = layer.weight_gradient(x, gy, W.shape)
    assert gW.shape == W.shape and not gW.any()


def test_without_output_channels_the_data_gradient_is_zero():
    gy, W = numpy.ones((2, 0, 3, 3), numpy.float32), numpy.ones((0, 4, 2, 2), numpy.float32)
    gx = geometry.plain_data_gradient(gy, W)
    assert gx.shape == (2, 4, 4, 4) and not gx.any()
    gy, W = numpy.ones((2, 0), numpy.float32), numpy.ones((0, 4), numpy.float32)
    gx = geometry.plain_data_gradient(gy, W)
    assert gx.shape == (2, 4) and not gx.any()


def test_the_plain_data_gradient_is_the_plain_layers():
    gy, W = random(1, 5, 4), random(2, 4, 7)
    numpy.testing.assert_array_equal(
        geometry.plain_data_gradient(gy, W), geometry.Linear().data_gradient(gy, W)
    )
    gy, W = random(1, 2, 4, 5, 6), random(2, 4, 3, 3, 2)
    numpy.testing.assert_array_equal(
        geometry.plain_data_gradient(gy, W), geometry.Convolution().data_gradient(gy, W)
    )


@pytest.mark.parametrize(
    'gy_shape, W_shape',
    [
        ((5, 4), (4, 3, 3, 3)),
        ((5, 4, 6, 6), (4, 3)),
        ((5, 2, 4), (4, 3)),
        ((5, 4, 6), (4, 3, 3)),
        ((), ()),
        ((5, 4), (3, 4)),
        ((2, 4, 6, 6), (3, 4, 1, 1)),
    ],
)
def test_shapes_of_neither_layer_are_an_error_that_names_them(gy_shape, W_shape):
    gy, W = numpy.zeros(gy_shape, numpy.float32), numpy.zeros(W_shape, numpy.float32)
    with pytest.raises(ValueError) as caught:
        geometry.plain_data_gradient(gy, W)
    message = str(caught.value)
    assert '\n' not in message
    assert str(gy_shape) in message and str(W_shape) in message and 'product=' in message


def test_a_geometry_is_a_value():
    layer = geometry.Convolution((2, 1), (0, 1), (1, 2), 3)
    assert layer == geometry.Convolution(stride=(2, 1), pad=(0, 1), dilate=(1, 2), groups=3)
    assert hash(layer) == hash(geometry.Convolution((2, 1), (0, 1), (1, 2), 3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        layer.groups = 1


LAYERS = {
    'linear': (geometry.Linear(), (4, 6), (6, 5), ()),
    'convolution': (geometry.Convolution(pad=(1, 1)), (2, 6, 4, 4), (6, 3, 3, 3), (4, 4)),
    'of 1 axis': (geometry.Convolution((1,), (1,), (1,)), (2, 6, 4), (6, 3, 3), (4,)),
    'deconvolution': (
        geometry.Deconvolution(geometry.Convolution(), (6, 6)),
        (2, 3, 6, 6),
        (6, 3, 3, 3),
        (4, 4),
    ),
    'pointwise': (geometry.Convolution(groups=2), (2, 6, 4, 5), (6, 3, 1, 1), (4, 5)),
    'pointwise of 1 axis': (geometry.Convolution((1,), (0,), (2,)), (2, 6, 4), (6, 3, 1), (4,)),
    'pointwise deconvolution': (
        geometry.Deconvolution(geometry.Convolution(groups=3), (4, 5)),
        (2, 6, 4, 5),
        (9, 2, 1, 1),
        (4, 5),
    ),
    'local': (geometry.LocalConvolution2D(), (2, 6, 2, 2), (6, 2, 2, 3, 3, 3), (4, 4)),
}


def products(layer, x, W, gy, x_size, **scaled):
    return (
        layer.output(x, W, **scaled),
        layer.data_gradient(gy, W, x_size, **scaled),
        layer.weight_gradient(x, gy, W.shape, **scaled),
    )


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32])
@pytest.mark.parametrize('name', sorted(LAYERS))
def test_each_product_is_scaled_before_it_is_rounded_once(name, dtype):
    layer, gy_shape, W_shape, x_size = LAYERS[name]
    gy, W = random(1, *gy_shape) * numpy.float32(2.0**-20), random(2, *W_shape)
    x = random(3, *layer.data_gradient(gy, W, x_size).shape)
    arrays = layer, x, W, gy, x_size
    for plain, scaled in zip(products(*arrays), products(*arrays, scale=1024.0, dtype=dtype)):
        assert plain.dtype == numpy.float32 and scaled.dtype == dtype
        numpy.testing.assert_array_equal(scaled, (plain * 1024).astype(dtype))


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32])
@pytest.mark.parametrize('name', sorted(LAYERS))
def test_each_product_of_halves_on_a_device_is_that_of_the_cpu(device, name, dtype):
    layer, gy_shape, W_shape, x_size = LAYERS[name]
    rng = numpy.random.RandomState(0)
    # Small integers: float32 sums of their products are exact, in any order.
    gy, W = (rng.randint(-9, 10, shape).astype('f') for shape in (gy_shape, W_shape))
    x = rng.randint(-9, 10, layer.data_gradient(gy, W, x_size).shape).astype('f')
    expected = products(layer, x, W, gy, x_size, scale=2.0**-17, dtype=dtype)
    halves = [device.send(array.astype('e')) for array in (x, W, gy)]
    for scale in (2.0**-17, device.send(numpy.array(2.0**-17, 'f'))):
        for found, one in zip(products(layer, *halves, x_size, scale=scale, dtype=dtype), expected):
            assert found.dtype == dtype
            numpy.testing.assert_array_equal(chainer.get_device('@numpy').send(found), one)


@pytest.mark.parametrize('name', [name for name in sorted(LAYERS) if 'pointwise' in name])
def test_of_a_pointwise_layer_no_columns_are_formed(name, monkeypatch):
    layer, gy_shape, W_shape, x_size = LAYERS[name]
    gy, W = random(1, *gy_shape), random(2, *W_shape)
    for function in ('im2col', 'col2im'):
        monkeypatch.delattr(geometry.conv, function)
        monkeypatch.delattr(geometry.conv_nd, function + '_nd')
    x = random(3, *layer.data_gradient(gy, W, x_size).shape)
    products(layer, x, W, gy, x_size)
