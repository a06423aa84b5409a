"""Each kernel that chooses a scale against the formula in NumPy, on the same arrays."""

import math

from chainerlp import formats, geometry, policies
from chainerlp.functions import LayerScale
from chainerlp.initial_scale import DelayedScale
from chainerlp.scaled_array import ScaledArray
from tests.gpu.agreement import CPU, NONFINITE, SPECIAL, gradients, scalar

import numpy
import pytest

pytestmark = pytest.mark.gpu

NO_BOUND = math.inf
ADAPTIVE = [
    policies.Adaptive(max_scale=NO_BOUND, max_total_scale=NO_BOUND),
    policies.Adaptive(),
    policies.Adaptive(max_scale=NO_BOUND, max_total_scale=NO_BOUND, variance='product'),
    policies.Adaptive(0.5, max_scale=NO_BOUND, max_total_scale=NO_BOUND, power_of_two=False),
]


@pytest.mark.parametrize('policy', ADAPTIVE, ids=repr)
@pytest.mark.parametrize('terms, backoff', [(1, 1.0), (4608, 1.0), (64, 2.0**-5)])
@pytest.mark.parametrize('exponent', [-20, -6, 0, 9])
def test_the_papers_formula(device, exponent, terms, backoff, policy):
    rng = numpy.random.RandomState(exponent + 30)
    gy = (rng.standard_normal(500) * 2.0**exponent).astype(numpy.float16)
    W = rng.standard_normal(300).astype(numpy.float32)
    expected = policy.scale(gy, W, 32.0, terms=terms, backoff=backoff)
    for total_scale in (32.0, scalar(device, 32)):
        found = policy.scale(
            device.send(gy), device.send(W), total_scale, terms=terms, backoff=backoff
        )
        assert found.dtype == numpy.float32 and found.shape == ()
        # Second moments may differ by 1e-5, and the root of their product by half of that each.
        numpy.testing.assert_allclose(float(found), expected, rtol=1e-5)


@pytest.mark.parametrize('gy', [[0.0, 0.0], [], [1.0, numpy.nan], [numpy.inf, 1.0], [2.0**-24]])
def test_the_papers_formula_where_it_has_no_answer(device, gy):
    gy, W = numpy.array(gy, numpy.float16), numpy.ones(3, numpy.float16)
    found = ADAPTIVE[0].scale(device.send(gy), device.send(W), terms=1)
    assert float(found) == ADAPTIVE[0].scale(gy, W, terms=1)


@pytest.mark.parametrize('shape', [(1, 7), (5, 3, 4, 4), (3, 20011), (700, 6), (1100, 300)])
@pytest.mark.parametrize('dtype', ['float16', 'float32'])
@pytest.mark.parametrize('spread', [0, 20])
def test_the_scale_given_the_sample(device, shape, dtype, spread):
    rng = numpy.random.RandomState(len(shape) + spread)
    sizes = 2.0 ** (-18 - spread * rng.rand(shape[0], *[1] * (len(shape) - 1)))
    gy = (rng.standard_normal(shape) * sizes).astype(dtype)
    gy[::5] = 0
    gy[0].flat[0] = 2.0**-20
    W = rng.standard_normal(300).astype(numpy.float32)
    for threshold in (1e-3, 0.3):
        policy = policies.PerSample(threshold)
        for backoff, total_scale in ((1.0, 64.0), (2.0**-5, scalar(device, 64))):
            expected = policy.scale(gy, W, 64.0, terms=9, backoff=backoff)
            arrays = device.send(gy), device.send(W)
            found = policy.scale(*arrays, total_scale, terms=9, backoff=backoff)
            assert found.dtype == numpy.float32 and found.shape == ()
            assert float(found) == expected  # a power of two, and no tie


GEOMETRIES = {
    'plain': (geometry.Convolution(), (3, 4, 9, 7), (4, 5, 3, 3)),
    'one position': (geometry.Convolution(pad=(1, 1)), (3, 300, 1, 1), (300, 4, 3, 3)),
    'strided, padded, dilated': (
        geometry.Convolution((2, 3), (1, 2), (2, 1)),
        (2, 6, 5, 6),
        (6, 3, 3, 2),
    ),
    'groups': (geometry.Convolution(groups=3, pad=(1, 1)), (5, 6, 8, 8), (6, 2, 3, 3)),
    'one axis': (geometry.Convolution((2,), (1,), (1,)), (4, 6, 33), (6, 2, 4)),
    'three axes': (
        geometry.Convolution((1,) * 3, (1,) * 3, (1,) * 3),
        (2, 4, 3, 4, 5),
        (4, 2, 3, 1, 3),
    ),
    'four axes': (
        geometry.Convolution((1,) * 4, (0,) * 4, (1,) * 4),
        (2, 4, 2, 2, 2, 2),
        (4, 2, 1, 1, 2, 2),
    ),
    'deconvolution': (
        geometry.Deconvolution(geometry.Convolution((2, 1), (1, 0), (1, 2), 2), (8, 9)),
        (3, 4, 8, 9),
        (6, 2, 4, 3),
    ),
    'local': (geometry.LocalConvolution2D((2, 1)), (2, 3, 4, 5), (3, 4, 5, 2, 3, 3)),
    'large image': (geometry.Convolution(pad=(1, 1)), (2, 3, 130, 150), (3, 4, 3, 3)),
    'many samples': (geometry.Convolution(), (1200, 2, 3, 3), (2, 4, 2, 2)),
}


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
@pytest.mark.parametrize('name', GEOMETRIES)
def test_the_scale_given_the_positions(device, name, dtype):
    layer, gy_shape, W_shape = GEOMETRIES[name]
    rng = numpy.random.RandomState(0)
    gy = rng.standard_normal(gy_shape) * 2.0 ** rng.uniform(
        -30, -10, gy_shape[:1] + (1,) + gy_shape[2:]
    )
    gy = (gy * (rng.rand(*gy_shape) < 0.3)).astype(dtype)
    W = (rng.standard_normal(W_shape) / 4000).astype('f')
    x_size = layer_input(layer, gy, W)
    by_output, terms = layer.weight_by_output(W), layer.terms(W_shape)
    window = layer.window(gy_shape, W_shape, x_size)
    assert (window is None) == (name == 'four axes')
    for threshold in (1e-3, 0.2):
        policy = policies.PerSample(threshold)
        for backoff in (1.0, 2.0**-5):
            context = dict(terms=terms, window=window, backoff=backoff)
            expected = policy.scale(gy, by_output, 64.0, **context)
            found = policy.scale(device.send(gy), device.send(by_output), 64.0, **context)
            assert float(found) == expected  # a power of two, and no tie


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_the_scale_given_the_positions_of_any_array(device, dtype):
    layer, W = geometry.Convolution(pad=(1, 1)), numpy.full((4, 2, 3, 3), 2.0**-14, 'f')
    policy = policies.PerSample(0.1)
    rng = numpy.random.RandomState(0)
    gy = (rng.standard_normal((5, 6, 4, 3)) * 2.0**-18).astype(dtype)

    def assert_same(gy, on_device):
        context = dict(terms=36, window=layer.window(gy.shape, W.shape, gy.shape[2:]))
        expected = policy.scale(gy, W, **context)
        assert float(policy.scale(on_device, device.send(W), **context)) == expected
        return expected

    sent = device.send(gy)
    assert assert_same(gy.transpose(0, 2, 3, 1), sent.transpose(0, 2, 3, 1)) > 1
    for value in NONFINITE:
        of_it = gy.transpose(0, 2, 3, 1).copy()
        of_it[1, 1, 1, 1] = value
        assert assert_same(of_it, device.send(of_it)) == 1
    if dtype == 'float32':  # positions of which float32's squares would be zeros
        wide = numpy.ones((4, 4, 3, 3), dtype) * 2.0**-10
        wide[::2] *= 2.0**-90
        assert assert_same(wide, device.send(wide)) > 2.0**10


def test_of_a_large_image_no_position_beyond_its_end_counts(device):
    """The last slice alone has a gradient: one more that saw it would lose half as much again."""
    layer = geometry.Convolution((1, 1, 1), (1, 1, 1), (1, 1, 1))
    W = numpy.full((3, 4, 3, 3, 3), 2.0**-6, numpy.float32)
    gy = numpy.zeros((2, 3, 8, 25, 25), numpy.float32)
    gy[:, :, -1] = 2.0**-20
    context = dict(terms=81, window=layer.window(gy.shape, W.shape, (8, 25, 25)))
    lost = policies.PerSample().predicted_underflow(gy, W, **context)
    policy = policies.PerSample(1.2 * lost)
    assert policy.scale(gy, W, **context) == 1
    assert policies.PerSample(0.9 * lost).scale(gy, W, **context) > 1
    assert float(policy.scale(device.send(gy), device.send(W), **context)) == 1


def layer_input(layer, gy, W):
    """Returns a spatial size of x that gives y this size."""
    if isinstance(layer, geometry.LocalConvolution2D):
        return 9, 7
    if isinstance(layer, geometry.Deconvolution):
        return layer.transpose.output(gy.astype('f'), W).shape[2:]
    return layer.smallest_input(gy.shape[2:], W.shape[2:])


@pytest.mark.parametrize('gy', [[[0.0, 0]], [[1.0, numpy.nan]], [[numpy.inf, 1]], [[]]])
def test_the_scale_given_the_sample_where_it_has_no_answer(device, gy):
    gy, W = numpy.array(gy, numpy.float16), numpy.ones(3, numpy.float16)
    policy = policies.PerSample()
    found = policy.scale(device.send(gy), device.send(W), terms=1)
    assert float(found) == policy.scale(gy, W, terms=1) == 1


@pytest.mark.parametrize('policy', ADAPTIVE, ids=repr)
@pytest.mark.parametrize('scale', [1.0, 3.0, 4.0, 2.0**20, numpy.inf, numpy.nan, 0.0])
def test_bounds(device, scale, policy):
    expected = policy.within_bounds(scale, 64.0)
    for total_scale in (64.0, scalar(device, 64)):
        found = policy.within_bounds(scalar(device, scale), total_scale)
        assert found.dtype == numpy.float32 and float(found) == expected


def test_a_scale_of_a_snapshot_is_bounded_by_what_is_on_the_device(device):
    policy = policies.Adaptive(max_total_scale=1024, interval=10)
    found = policy.within_bounds(16.0, scalar(device, 256))
    assert found.dtype == numpy.float32 and float(found) == 4


def assert_total(device, found, total_scale):
    """Checks α and the total scale that were chosen on a device; returns α."""
    alpha, total = found
    assert alpha.dtype == total.dtype == numpy.float32 and alpha.shape == total.shape == ()
    assert float(total) == float(total_scale * alpha)
    return float(alpha)


def totals(device):
    """A total scale as a number and on the device, and one that is no power of two."""
    return 64.0, scalar(device, 64), 3.7


CURRENT = [
    policies.Amax(),
    policies.Amax(2, power_of_two=False),
    policies.Amax(max_scale=8.0, max_total_scale=100.0),
    policies.Measured(),
    policies.Measured(0.3),
    policies.Measured(1e-6, power_of_two=False),
]


@pytest.mark.parametrize('policy', CURRENT, ids=repr)
@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64'])
@pytest.mark.parametrize('size', [0, 1, 3, 8, 9, 255, 257, 2049, 20011])
def test_current_scaling(device, size, dtype, policy):
    for largest in (65504.0, 2.0**-9):
        product = gradients(size, 'float64', special=(*SPECIAL[:5], 2.0**-25, 0.99 * 2.0**-9))
        product = numpy.clip(product, -largest, largest).astype(dtype)
        W = numpy.ones((1, 1), numpy.float16)
        for total_scale in totals(device):
            for backoff in (1.0, 2.0**-5):
                expected = policy.scale(W, W, float(total_scale), product=product, backoff=backoff)
                sent = device.send(W), device.send(W), total_scale
                found = policy.scale_and_total(*sent, product=device.send(product), backoff=backoff)
                assert assert_total(device, found, total_scale) == numpy.float32(expected)


@pytest.mark.parametrize('policy', CURRENT, ids=repr)
@pytest.mark.parametrize('value', [*NONFINITE, 0.0, -0.0, 2.0**-140, 2.0**-149, 3e38])
def test_current_scaling_of_special_values(device, value, policy):
    for others in (0.0, 2.0**-20):
        product = numpy.full(3000, others, numpy.float32)
        product[[7, 2999]] = value
        found = policy.scale(*[device.send(product)] * 2, product=device.send(product))
        assert float(found) == numpy.float32(policy.scale(product, product, product=product))


@pytest.mark.parametrize('format', formats.NAMES)
@pytest.mark.parametrize('exponent', [-30, -12, 0])
def test_current_scaling_in_every_format(device, exponent, format):
    product = gradients(3000, 'float32') * numpy.float32(2.0**exponent)
    for policy in (policies.Amax(format=format), policies.Measured(0.1, format=format)):
        with numpy.errstate(divide='ignore'):  # float64 loses nothing
            expected = policy.scale(product, None, product=product)
        sent = device.send(product)
        assert float(policy.scale(sent, None, product=sent)) == expected


LAYOUTS = {
    'transposed': lambda a: a.T,
    'strided': lambda a: a[::2, ::3],
    'misaligned': lambda a: a[0, 1:],
    'reversed': lambda a: a[::-1, ::-1],
}
EVERY = [
    *(*ADAPTIVE[:1], policies.PerSample(), *CURRENT[::3]),
    *(policies.AbsRange(), policies.LogNormal()),
]


@pytest.mark.parametrize('policy', EVERY, ids=repr)
@pytest.mark.parametrize('dtype', ['float16', 'float32'])
@pytest.mark.parametrize('layout', sorted(LAYOUTS))
def test_any_layout_of_any_array(device, layout, dtype, policy):
    whole = gradients(60 * 51, dtype).reshape(60, 51) * numpy.array(2.0**-12, dtype)
    for k in range(3):
        arrays, sent = [whole] * 3, [device.send(whole)] * 3
        arrays[k], sent[k] = LAYOUTS[layout](arrays[k]), LAYOUTS[layout](sent[k])
        expected = policy.scale(*arrays[:2], 4.0, terms=7, product=arrays[2])
        found = policy.scale_and_total(*sent[:2], 4.0, terms=7, product=sent[2])
        alpha = assert_total(device, found, 4.0)
        # Second moments are sums in other orders; see test_statistics.
        assert abs(alpha / expected - 1) < 1e-5


@pytest.mark.parametrize('policy', [*ADAPTIVE[:1], policies.PerSample()], ids=repr)
@pytest.mark.parametrize('dtype', ['float16', 'float32'])
@pytest.mark.parametrize('size', [0, 1, 7, 300, 100000])
def test_weights_of_any_size(device, size, dtype, policy):
    gy = numpy.full((3, 5), 2.0**-20, numpy.float16)
    for value, last in ((0.37, 0.37), (0.0, 0.0), (0.37, numpy.inf), (0.37, numpy.nan)):
        W = numpy.full(size, value, dtype)
        W[size - 1 :] = last
        for total_scale in totals(device):
            expected = policy.scale(gy, W, float(total_scale), terms=9)
            found = policy.scale_and_total(device.send(gy), device.send(W), total_scale, terms=9)
            assert float(found[0]) == expected
            assert float(found[1]) == numpy.float32(float(total_scale)) * numpy.float32(expected)


@pytest.mark.parametrize('policy', EVERY, ids=repr)
def test_what_is_kept_is_bounded_by_what_comes(device, policy):
    random = numpy.random.RandomState(0)
    gy = (random.standard_normal((6, 5)) * 2.0**-20).astype('e')
    W = random.standard_normal((5, 5)).astype('e')
    policy = type(policy)(interval=4, max_scale=32.0, max_total_scale=100.0)
    found, expected = [], []
    for where, choices in ((CPU, expected), (device, found)):
        layer_scale = LayerScale(policy)
        for total_scale, backoff in ((1.0, 1.0), (2.0, 1.0), (3.7, 0.25), (64.0, 1.0), (2.0, 1.0)):
            given = total_scale if where is CPU else scalar(where, total_scale)
            arrays = where.send(gy), where.send(W)
            context = {'terms': 5, 'product': where.send(gy.astype('f')), 'backoff': backoff}
            alpha, total = layer_scale.choose(0, *arrays, given, **context)
            assert float(total) == numpy.float32(total_scale) * numpy.float32(float(alpha))
            choices.append(float(alpha))
    assert found == expected and len(set(found)) > 1


@pytest.mark.parametrize('policy', [policies.Amax(interval=4), policies.Fixed(2.0**10)], ids=repr)
@pytest.mark.parametrize('compute_dtype', ['float16', 'bfloat16'])
def test_what_is_kept_is_bounded_by_what_is_cast(device, compute_dtype, policy):
    found, expected = [], []
    for where, choices in ((CPU, expected), (device, found)):
        layer_scale = LayerScale(policy, compute_dtype=compute_dtype)
        for largest in (1.0, 2.0**40, 2.0**70, 0.0, numpy.inf, numpy.nan, 1.0):
            gy = where.send(numpy.array([[1.0, largest]], numpy.float32))
            context = {'terms': 1, 'product': gy, 'backoff': 1.0, 'is_cast': True}
            given = 2.0 if where is CPU else scalar(where, 2)
            alpha, total = layer_scale.choose(0, gy, gy, given, **context)
            assert float(total) == 2 * float(alpha)
            choices.append(float(alpha))
    assert found == expected


class Halving(policies.Amax):
    """A user's policy: that of a base class, times a half."""

    def scale(self, *args, **context):
        return super().scale(*args, **context) * 0.5


def test_a_subclass_chooses_on_the_device_what_its_method_says(device):
    product = device.send(gradients(300, 'float32'))
    alpha, total = Halving().scale_and_total(product, None, scalar(device, 4), product=product)
    assert float(alpha) == 0.5 * float(policies.Amax().scale(product, None, 4.0, product=product))
    assert float(total) == 4 * float(alpha)


@pytest.mark.parametrize('count', [1, 3, 16, 40])
def test_the_initial_scale_of_many_gradients(device, count):
    for value in (2.0**-12, numpy.inf, numpy.nan):
        found, expected = DelayedScale(), DelayedScale()
        arrays = [numpy.full(3, 2.0**-20 * (k + 1), 'e') for k in range(count)]
        arrays[count // 2][1] = value
        scales = [2.0 ** (k % 5) for k in range(count)]
        expected.observe([ScaledArray(a, s) for a, s in zip(arrays, scales)], numpy.dtype('f'))
        sent = [scalar(device, s) if k % 2 else s for k, s in enumerate(scales)]
        sent = [ScaledArray(device.send(a), s) for a, s in zip(arrays, sent)]
        found.observe(sent, numpy.dtype('f'))
        assert (float(found.scale), found.is_known) == (expected.scale, expected.is_known)


UNBOUNDED = {'max_scale': NO_BOUND, 'max_total_scale': NO_BOUND}
BASELINES = [
    policies.AbsRange(),
    policies.AbsRange(power_of_two=False, **UNBOUNDED),
    policies.ElementWiseRange(),
    policies.ElementWiseRange(power_of_two=False, **UNBOUNDED),
    policies.LogNormal(),
    policies.LogNormal(0.2, power_of_two=False, **UNBOUNDED),
]


def assert_same_choice(device, policy, gy, W, **context):
    for total_scale in totals(device):
        expected = policy.scale(gy, W, float(total_scale), **context)
        found = policy.scale_and_total(device.send(gy), device.send(W), total_scale, **context)
        # Sums of logarithms are formed in another order, in float64; α is stored in float32.
        tolerance = 2.0**-23 if isinstance(policy, policies.LogNormal) else 0
        alpha = assert_total(device, found, total_scale)
        numpy.testing.assert_allclose(alpha, numpy.float32(expected), rtol=tolerance)
    return expected


@pytest.mark.parametrize('policy', BASELINES, ids=repr)
@pytest.mark.parametrize('dtype', ['float16', 'float32'])
@pytest.mark.parametrize(
    'gy_shape, W_shape',
    [((1, 1), (1, 1)), ((7, 300), (300, 5)), ((3, 4, 5, 7), (4, 3, 3, 3)), ((9, 2, 999), (2, 3))],
)
def test_what_the_papers_is_compared_with(device, gy_shape, W_shape, dtype, policy):
    gy = gradients(math.prod(gy_shape), dtype, special=(2.0**-30, 0.0)).reshape(gy_shape)
    gy = gy * numpy.array(2.0**-4, dtype)
    gy[:, -1:] *= numpy.array(2.0**-4, dtype)
    W = numpy.random.RandomState(0).standard_normal(W_shape).astype('e')
    W[-1].flat[0] = 0
    scales = {assert_same_choice(device, policy, gy, W, terms=k) for k in (1, 4608)}
    assert_same_choice(device, policy, gy[::2, :, ...], W[..., ::2], terms=9, backoff=2.0**-5)
    assert gy.size < 10 or max(scales) != 1


@pytest.mark.parametrize('policy', BASELINES, ids=repr)
def test_what_it_is_compared_with_of_other_arrays(device, policy):
    gy, W = numpy.full((2, 3), 2.0**-30), numpy.ones((3, 2))
    assert_same_choice(device, policy, gy, W, terms=3)


def test_channels_are_columns_of_the_grid_of_which_there_may_be_more_than_65535(device):
    gy, W = device.xp.ones((2, 70000), 'e'), device.xp.ones((70000, 2), 'e')
    launch = policies.ElementWiseRange()._kernel(gy, W, 2, None, None, 1.0)
    assert launch.args[2] == (70000, 1)


@pytest.mark.parametrize('policy', BASELINES, ids=repr)
@pytest.mark.parametrize('value', [*NONFINITE, 0.0, 2.0**-100, 1e30])
def test_what_it_is_compared_with_of_special_values(device, value, policy):
    gy, W = numpy.full((3, 4), 2.0**-20, 'f'), numpy.ones((4, 2), 'f')
    gy[1, 2] = value
    assert_same_choice(device, policy, gy, W, terms=4)
    assert_same_choice(device, policy, numpy.full((3, 4), value, 'f'), W, terms=4)
    if value == numpy.inf:  # the others want a large scale
        gy[...], gy[1, 2] = 2.0**-40, value
        assert_same_choice(device, policy, gy, W, terms=4)
    W[3] = 0  # inf · 0
    gy[1, 3] = value
    assert_same_choice(device, policy, gy, W, terms=4)
