"""Float32 layers whose products take factors of a lower format, and nothing else of the model."""

import copy
import pickle

import chainerlp
from chainerlp import formats, policies, rounding
from chainerlp.functions import scaled_function
from chainerlp.window import of_each_position
from tests.links.test_scaled_links import LAYERS, assert_close, every_layer, make, run
from tests.test_rounding import expected

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers

FORMATS = ('float16', 'bfloat16', 'float8_e5m2', 'float8_e4m3')
every_format = pytest.mark.parametrize('compute_dtype', FORMATS)
either_backward = pytest.mark.parametrize(
    'backward', [chainer.Variable.backward, chainerlp.backward]
)


def converted(name, policy, magnitude=0.5, compute_dtype='float16'):
    return chainerlp.convert(
        make(name, numpy.float32, magnitude), policy, compute_dtype=compute_dtype
    )


@every_layer
@either_backward
def test_gradients_that_float16_would_lose_survive(name, backward):
    """All factors of a single product are halves, so nothing but float32 sums makes a difference.

    Where products follow each other, each rounds what it is given, as in float16.
    """
    weights, tiny = 2.0**-10, 2.0**-60
    expected = run(name, make(name, numpy.float32, weights), numpy.float32, magnitude=tiny)
    magnitudes = None
    if LAYERS[name].roundings == 1:
        positive = make(name, numpy.float32, weights, numpy.abs)
        magnitudes = run(name, positive, numpy.float32, magnitude=tiny, change=numpy.abs)
    link = converted(name, policies.Amax(), weights)
    actual = run(name, link, numpy.float32, backward, magnitude=tiny)
    assert actual.y.dtype == numpy.float32
    assert {g.dtype for g in actual.gradients.values()} == {numpy.dtype('float32')}
    assert set(actual.scales.values()) == {1.0}
    if magnitudes is None:
        assert_close(actual, expected, LAYERS[name].roundings)
        return
    for key, exact in expected.gradients.items():
        error = numpy.abs(actual.gradients[key] - exact.astype(numpy.float64))
        assert (error <= 2 * 1000 * 2.0**-24 * magnitudes.gradients[key]).all(), key
    lost = run(name, converted(name, policies.Fixed(1), weights), numpy.float32, magnitude=tiny)
    assert not lost.gradients[0].any()
    if '/b' in lost.gradients:  # a sum, no product
        numpy.testing.assert_array_equal(lost.gradients['/b'], actual.gradients['/b'])


@every_layer
def test_it_is_forgotten_by_another_conversion(name):
    link = chainerlp.convert(converted(name, policies.Amax()), policies.Amax())
    expected = run(name, make(name, numpy.float32), numpy.float32)
    numpy.testing.assert_array_equal(run(name, link, numpy.float32).y, expected.y)


@every_format
@pytest.mark.parametrize('name', ['Linear', 'Convolution2D, all', 'Bilinear'])
def test_factors_are_rounded_to_the_format(name, compute_dtype):
    random = numpy.random.RandomState(0)
    format = formats.get(compute_dtype)
    link = make(name, numpy.float32)
    for param in link.params():
        param.array = random.standard_normal(param.shape).astype(numpy.float32)
    inputs = [random.standard_normal(s).astype(numpy.float32) for s in LAYERS[name].shapes]
    exact = link(*inputs).array
    chainerlp.convert(link, policies.Amax(), compute_dtype=compute_dtype)
    rounded = link(*inputs).array
    error = numpy.linalg.norm(rounded - exact) / numpy.linalg.norm(exact)
    # At random, the roundings of a sum add up to about one's mean square: within a factor of 8.
    assert format.relative_rounding / 8 < error < 2 * format.relative_rounding


def test_the_policy_decides_as_for_a_cast():
    """K = 1 and E[W²] = 1, in the format of the products."""
    gy = numpy.random.RandomState(0).standard_normal((40, 5)).astype(numpy.float32) * 1e-9
    ones = numpy.ones((5, 1), numpy.float32)
    unbounded = {'max_scale': numpy.inf, 'max_total_scale': numpy.inf}
    for kind in (
        policies.Adaptive,
        policies.AbsRange,
        policies.ElementWiseRange,
        policies.LogNormal,
    ):
        for compute_dtype in FORMATS:
            link = chainerlp.convert(L.Linear(3, 5), kind(**unbounded), compute_dtype=compute_dtype)
            y = link(numpy.ones((40, 3), numpy.float32))
            y.grad = gy
            y.backward()
            expected = kind(**unbounded, format=compute_dtype).scale(gy, ones, terms=1, product=gy)
            assert y.creator.scale == expected
            assert expected > 1 or compute_dtype == 'bfloat16'


def test_the_scale_of_a_cast_given_the_sample_looks_at_each_position():
    random = numpy.random.RandomState(0)
    gy = random.standard_normal((8, 5, 6, 6)) * 2.0 ** random.uniform(-40, -20, (8, 1, 6, 6))
    gy, ones = gy.astype(numpy.float32), numpy.ones((5, 1), numpy.float32)
    policy = policies.PerSample()
    link = chainerlp.convert(L.Convolution2D(3, 5, 1), policy, compute_dtype='float16')
    y = link(numpy.ones((8, 3, 6, 6), numpy.float32))
    y.grad = gy
    y.backward()
    by_position = policy.scale(gy, ones, terms=1, window=of_each_position((6, 6)))
    assert y.creator.scale == by_position > policy.scale(gy, ones, terms=1)


@every_format
@either_backward
def test_all_that_enters_a_product_is_rounded_and_nothing_else(compute_dtype, backward):
    """Against products in float64 of what ml_dtypes rounds to."""
    link = L.Linear(6, 5)
    random = numpy.random.RandomState(0)
    x = chainer.Variable(random.standard_normal((4, 6)).astype('f'))
    link.W.array[...] = random.standard_normal((5, 6))
    link.b.array[...] = random.standard_normal(5)
    chainerlp.convert(link, policies.Fixed(8), compute_dtype=compute_dtype)
    y = link(x)
    gy = random.standard_normal((4, 5)).astype('f')
    y.grad = gy
    link.cleargrads()
    backward(y)

    def rounded(array):
        return expected(array, compute_dtype)[0].astype('d')

    x_, W, gy_ = rounded(x.array), rounded(link.W.array), rounded(8 * gy) / 8
    exact = {'y': x_ @ W.T + link.b.array, 'gx': gy_ @ W, 'gW': gy_.T @ x_, 'gb': gy.sum(0)}
    found = {'y': y.array, 'gx': x.grad, 'gW': link.W.grad, 'gb': link.b.grad}
    # Float32 sums of up to 6 products of 8 at most: 6 * 48 * 2^-24.
    for key, value in exact.items():
        numpy.testing.assert_allclose(found[key], value, rtol=0, atol=1.8e-5, err_msg=key)


@every_format
@pytest.mark.parametrize('kind', [policies.Amax, policies.PerSample, policies.Measured])
def test_large_gradients_do_not_overflow(compute_dtype, kind):
    link = chainerlp.convert(L.Linear(20, 10), kind(), compute_dtype=compute_dtype)
    x = chainer.Variable(numpy.full((30, 20), 100, 'f'))
    y = link(x)
    y.grad = numpy.full((30, 10), 1e4, 'f')
    link.cleargrads()
    y.backward()
    assert numpy.isfinite(x.grad).all()
    # Both factors of each term are rounded, and alike in all terms.
    unit = formats.get(compute_dtype).relative_rounding
    numpy.testing.assert_allclose(link.W.grad, 30 * 1e6, rtol=2.2 * unit)


@every_format
def test_a_gradient_is_lost_without_a_scale_and_kept_with_one(compute_dtype):
    if compute_dtype == 'bfloat16':
        pytest.skip('nothing that float32 has is lost to its range')
    link = L.Linear(20, 10)
    x = chainer.Variable(numpy.random.RandomState(0).standard_normal((30, 20)).astype('f'))
    gy = numpy.random.RandomState(1).standard_normal((30, 10)).astype('f') * 1e-10

    def gradients(policy):
        chainerlp.convert(link, policy, compute_dtype=compute_dtype)
        y = link(x)
        y.grad = gy
        x.cleargrad()
        link.cleargrads()
        y.backward()
        return {'x': x.grad, 'W': link.W.grad}

    exact = {'x': gy @ link.W.array, 'W': gy.T @ x.array}
    for key, gradient in gradients(policies.Amax()).items():
        error = numpy.linalg.norm(gradient - exact[key]) / numpy.linalg.norm(exact[key])
        assert error < 2 * formats.get(compute_dtype).relative_rounding
    for gradient in gradients(policies.Fixed(1)).values():
        assert not gradient.any()


@either_backward
def test_what_is_beyond_float16_is_saturated_and_counted(backward):
    link = L.Linear(2, 2, nobias=True)
    link.W.array[...] = [[1e6, 1], [1, -1e9]]
    chainerlp.convert(link, policies.Amax(), compute_dtype='float16')
    x = chainer.Variable(numpy.float32([[1e5, 1]]))
    y = link(x)
    numpy.testing.assert_array_equal(y.array, numpy.float32([[65504.0**2 + 1, 0]]))
    assert link.layer_scale.saturated == 3
    y.grad = numpy.float32([[1e30, 1e30]])  # a scale under 1 brings it into the range
    backward(y)
    assert link.layer_scale.saturated == 3
    numpy.testing.assert_allclose(x.grad, [[1e30 * 65505, 1e30 * -65503]], rtol=2.0**-10)


def test_what_is_not_finite_stays_so():
    link = chainerlp.convert(L.Linear(2, 2), policies.Amax(), compute_dtype='float16')
    with numpy.errstate(invalid='ignore'):
        y = link(numpy.float32([[numpy.inf, 1], [numpy.nan, 1], [1, 1]])).array
    assert not numpy.isfinite(y[:2]).any()
    assert numpy.isfinite(y[2]).all()
    assert link.layer_scale.saturated == 0


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float64])
def test_layers_of_other_dtypes_are_as_without(dtype):
    results = []
    for compute_dtype in (None, 'float8_e4m3'):
        link = make('Linear', dtype)
        chainerlp.convert(link, policies.Amax(), compute_dtype=compute_dtype)
        results.append(run('Linear', link, dtype, chainerlp.backward))
    numpy.testing.assert_array_equal(results[0].y, results[1].y)
    for key, gradient in results[0].gradients.items():
        numpy.testing.assert_array_equal(results[1].gradients[key], gradient)
    assert results[0].scales == results[1].scales


def test_gradients_that_leave_the_format_are_counted():
    link = chainerlp.convert(L.Linear(2, 2), policies.Fixed(1), compute_dtype='float16')
    y = link(chainer.Variable(numpy.ones((1, 2), 'f')))
    y.grad = numpy.float32([[1e6, 1]])
    y.backward()
    assert link.layer_scale.saturated == 1


def test_plain_backward_keeps_no_scale():
    policy = policies.Amax(interval=100)
    link = chainerlp.convert(L.Linear(2, 2), policy, compute_dtype='float16')
    for exponent in (0, -40):
        y = link(chainer.Variable(numpy.ones((1, 2), 'f')))
        y.grad = numpy.full((1, 2), 2.0**exponent, 'f')
        y.backward()
        assert y.creator.scale == 2.0 ** (11 - exponent)
        assert y.creator.total_scale is None
    assert not link.layer_scale._held


def test_a_policy_of_ones_own_may_have_a_format():
    class Own(policies.Policy):
        format = 'float16'

        def scale(self, gy, W, total_scale=1.0, **context):
            return 4.0

    link = chainerlp.convert(L.Linear(2, 2), Own(), compute_dtype='float8_e4m3')
    y = link(chainer.Variable(numpy.ones((1, 2), 'f')))
    y.grad = numpy.ones((1, 2), 'f')
    y.backward()
    assert y.creator.scale == 4


@pytest.mark.parametrize('name', LAYERS)
def test_every_family_rounds(name):
    weights, tiny = 2.0**-10, 2.0**-60
    lost = run(name, converted(name, policies.Fixed(1), weights), numpy.float32, magnitude=tiny)
    exact = run(name, make(name, numpy.float32, weights), numpy.float32, magnitude=tiny)
    weights = [key for key, g in exact.gradients.items() if isinstance(key, str) and g.ndim > 1]
    weights = [key for key in weights if exact.gradients[key].any() and not key.endswith('/b')]
    assert weights
    assert not any(lost.gradients[key].any() for key in weights)


def test_a_gradient_penalty_is_chainers():
    link = converted('Linear', policies.Amax())
    plain = make('Linear', numpy.float32)
    x = chainer.Variable(numpy.random.RandomState(0).standard_normal((4, 7)).astype('f'))

    def penalty(layer):
        y = F.sum(layer(x) ** 2 / 2)
        (gx,) = chainer.grad([y], [x], enable_double_backprop=True)
        layer.cleargrads()
        F.sum(gx**2).backward()
        return layer.W.grad

    numpy.testing.assert_allclose(penalty(link), penalty(plain), rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_it_can_be_copied_and_pickled(duplicate):
    link = converted('NStepLSTM', policies.Amax())
    expected = run('NStepLSTM', link, numpy.float32)
    for twin in (duplicate(link), link.copy('copy')):
        numpy.testing.assert_array_equal(run('NStepLSTM', twin, numpy.float32).y, expected.y)


def test_what_is_no_compute_dtype_is_refused():
    message = r"compute_dtype must be one of float16, bfloat16, .*, not 'float32'"
    with pytest.raises(ValueError, match=message):
        chainerlp.convert(L.Linear(2, 2), policies.Amax(), compute_dtype='float32')
    with pytest.raises(ValueError, match=message):
        chainerlp.AdaptiveLossScaling(optimizers.SGD(), compute_dtype='float32')


def test_the_weights_of_a_stacked_rnn_are_rounded_once_for_all_steps(monkeypatch):
    rounded = []

    def counting(array, *args, **kwargs):
        rounded.append(array.shape)
        return rounding.round_saturating(array, *args, **kwargs)

    monkeypatch.setattr(scaled_function, 'round_saturating', counting)
    run('NStepLSTM', converted('NStepLSTM', policies.Amax()), numpy.float32)
    # Two layers, of 4 and 5 inputs, each with the weights of the inputs and of the hidden state.
    assert rounded.count((20, 4)) == 1
    assert rounded.count((20, 5)) == 3


def test_a_weight_that_changes_between_two_uses_is_rounded_anew():
    link = converted('Linear', policies.Amax())
    x = numpy.ones((2, 7), 'f')
    before = link(x)
    link.W.array[...] *= 2
    link.b.array[...] *= 2
    numpy.testing.assert_array_equal(link(x).array, 2 * before.array)
