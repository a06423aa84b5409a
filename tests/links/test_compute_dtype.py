"""Float32 layers whose products take factors of a lower format, and nothing else of the model."""

import copy
import pickle

import chainerlp
from chainerlp import formats, policies, rounding
from chainerlp.functions import scaled_function
from tests.links.test_scaled_links import LAYERS, assert_close, every_layer, make, run
from tests.test_rounding import expected

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers, serializers

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
    for key, value in exact.items():
        numpy.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-5, err_msg=key)


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
    numpy.testing.assert_allclose(link.W.grad, 30 * 1e6, rtol=0.2)  # 1e4 rounds to a power of two


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


def test_what_saturated_is_in_snapshots(tmp_path):
    def trained():
        model = L.Linear(2, 2)
        optimizer = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.0), compute_dtype='float16')
        return model, optimizer.setup(model)

    model, optimizer = trained()
    x = chainer.Variable(numpy.full((3, 2), 1e6, 'f'))
    with pytest.warns(RuntimeWarning, match='left float16'):
        optimizer.update(lambda: F.sum(model(x)))
    assert optimizer.saturated == 6
    serializers.save_npz(tmp_path / 'optimizer.npz', optimizer)
    resumed = trained()[1]
    serializers.load_npz(tmp_path / 'optimizer.npz', resumed)
    assert resumed.saturated == 6
    plain = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.0)).setup(L.Linear(2, 2))
    serializers.save_npz(tmp_path / 'plain.npz', plain)
    serializers.load_npz(tmp_path / 'plain.npz', trained()[1])


def test_saturation_in_a_loop_of_ones_own_is_told():
    model = L.Linear(2, 2)
    optimizer = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.0), compute_dtype='float16')
    optimizer.setup(model)
    loss = F.sum(model(chainer.Variable(numpy.full((3, 2), 1e6, 'f'))))
    model.cleargrads()
    optimizer.backward(loss)
    with pytest.warns(RuntimeWarning, match='of / left float16'):
        optimizer.update()


def test_a_training_gives_no_warning(recwarn):
    train(network(), adam(network(), compute_dtype='float16'), 0)
    model = network()
    train(model, adam(model, compute_dtype='float16'), 3)
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


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


def test_bilinear_called_as_a_function_has_it():
    W = chainer.Parameter(numpy.full((3, 4, 5), 1 + 2.0**-20, 'f'))
    model = chainer.Chain()
    with model.init_scope():
        model.W = W
    optimizer = adam(model, compute_dtype='float16')
    found = []

    def loss():
        y = F.bilinear(numpy.ones((2, 3), 'f'), numpy.ones((2, 4), 'f'), model.W)
        found.append(y.array)
        return F.sum(y)

    optimizer.update(loss)
    numpy.testing.assert_array_equal(found[0], 12)


class Functional(chainer.Chain):
    """Calls layers as functions, with parameters of its own and with a link's."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv = chainer.Parameter(chainer.initializers.Normal(0.3), (4, 2, 3, 3))
            self.linear = chainer.Parameter(chainer.initializers.Normal(0.3), (5, 4 * 16))
            self.last = L.Linear(5, 3)

    def forward(self, x, t):
        h = F.relu(F.convolution_2d(x, self.conv, pad=1))
        h = F.linear(h, self.linear)
        return F.softmax_cross_entropy(F.linear(F.relu(h), self.last.W), t)


def functional(policy=None, compute_dtype='float16', restored=None):
    numpy.random.seed(0)
    model = Functional()
    optimizer = chainerlp.AdaptiveLossScaling(
        optimizers.SGD(0.0), policy, compute_dtype=compute_dtype
    ).setup(model)
    if restored:
        chainerlp.restore(model[restored])
    random = numpy.random.RandomState(1)
    x = random.standard_normal((6, 2, 4, 4)).astype('f')
    optimizer.update(lambda *a: model(*a) * 2.0**-40, x, random.randint(0, 3, 6).astype('i'))
    return {path: param.grad * 2.0**40 for path, param in model.namedparams() if path != '/last/b'}


def test_layers_called_as_functions_have_it_in_an_update():
    exact = functional(compute_dtype=None)
    for path, gradient in functional().items():
        error = numpy.linalg.norm(gradient - exact[path]) / numpy.linalg.norm(exact[path])
        assert 2.0**-16 < error < 2.0**-8, path  # 2^-11, a few times
    assert not any(gradient.any() for gradient in functional(policies.Fixed(1)).values())


def test_a_restored_links_weight_does_not():
    gradients = functional(policies.Fixed(1), restored='last')
    assert gradients.pop('/last/W').any()
    assert not any(gradient.any() for gradient in gradients.values())


def test_outside_of_an_update_chainers_functions_are_chainers():
    functional()
    x, W = numpy.ones((2, 3), 'f'), numpy.full((2, 3), 1 + 2.0**-20, 'f')
    numpy.testing.assert_array_equal(F.linear(x, W).array, x @ W.T)


def network():
    numpy.random.seed(0)
    layers = [L.Convolution2D(1, 4, 3), F.relu, L.Linear(None, 30), F.sigmoid, L.Linear(30, 5)]
    model = L.Classifier(chainer.Sequential(*layers))
    model(*batch())  # initializes it
    return model


def batch(seed=0):
    random = numpy.random.RandomState(seed)
    t = random.randint(0, 5, 20).astype('i')
    return (t[:, None, None, None] + random.rand(20, 1, 6, 6)).astype('f'), t


def train(model, optimizer, steps=20):
    losses = []
    for step in range(steps):
        optimizer.update(model, *batch(step))
        losses.append(float(model.loss.array))
    return losses


def adam(model, **options):
    return chainerlp.AdaptiveLossScaling(optimizers.Adam(0.01), **options).setup(model)


@pytest.mark.parametrize('policy', [None, policies.Measured(interval=3), policies.Fixed(2.0**12)])
def test_it_trains_as_float32_does(policy):
    model, reference = network(), network()
    losses = train(model, adam(model, policy=policy, compute_dtype='float16'))
    expected = train(reference, optimizers.Adam(0.01).setup(reference))
    numpy.testing.assert_allclose(losses, expected, rtol=2.0**-8)
    assert losses != expected
    assert expected[-1] < 0.8 * expected[0]


def test_off_everything_is_chainers_bit_for_bit():
    model, reference = network(), network()
    assert train(model, adam(model)) == train(reference, optimizers.Adam(0.01).setup(reference))


def test_a_resumed_training_goes_on_as_if_nothing_had_been(tmp_path):
    def wrapped():
        model = network()
        return model, adam(model, policy=policies.Amax(interval=4), compute_dtype='float16')

    model, optimizer = wrapped()
    train(model, optimizer, 6)
    serializers.save_npz(tmp_path / 'model.npz', model)
    serializers.save_npz(tmp_path / 'optimizer.npz', optimizer)
    resumed, its_optimizer = wrapped()
    serializers.load_npz(tmp_path / 'model.npz', resumed)
    serializers.load_npz(tmp_path / 'optimizer.npz', its_optimizer)
    assert train(resumed, its_optimizer, 5) == train(model, optimizer, 5)


def test_a_loop_of_ones_own_and_forget():
    def losses(apply):
        model = network()
        optimizer = adam(model, compute_dtype='float16')
        for step in range(5):
            x, t = batch(step)
            loss = F.softmax_cross_entropy(apply(model.predictor, chainer.Variable(x)), t)
            model.cleargrads()
            optimizer.backward(loss)
            optimizer.update()
            yield float(loss.array)

    model = network()
    expected = train(model, adam(model, compute_dtype='float16'), 5)
    assert list(losses(lambda net, x: net(x))) == expected
    assert list(losses(F.forget)) == expected


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


@pytest.mark.parametrize('interval', [1, 5])
def test_a_gradient_that_grows_is_not_cut_off(interval):
    link = L.Linear(3, 2)
    optimizer = adam(link, policy=policies.Amax(interval=interval), compute_dtype='float16')
    x = chainer.Variable(numpy.ones((4, 3), 'f'))
    for exponent in (-20, -20, 10, 20, -20):
        optimizer.update(lambda e=exponent: F.sum(link(x)) * numpy.float32(2.0**e))
        numpy.testing.assert_array_equal(link.b.grad, numpy.full(2, 4 * 2.0**exponent))
        numpy.testing.assert_allclose(link.W.grad, 4 * 2.0**exponent, rtol=2.0**-22)
    assert optimizer.saturated == 0


def test_functions_of_a_gradient_penalty_stay_chainers_in_an_update():
    class Critic(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.conv = L.Convolution2D(2, 4, 3)
                self.last = L.Linear(4 * 4 * 4, 1)

        def penalty(self, x):
            x = chainer.Variable(x)
            y = F.sum(self.last(F.tanh(self.conv(x)))) * numpy.float32(2.0**-30)
            (gx,) = chainer.grad([y], [x], enable_double_backprop=True)
            return F.sum(gx**2) * numpy.float32(2.0**60)

    def gradients(**options):
        numpy.random.seed(0)
        critic = Critic()
        x = numpy.random.RandomState(1).standard_normal((3, 2, 6, 6)).astype('f')
        optimizer = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.0), **options).setup(critic)
        optimizer.update(critic.penalty, x)
        return {path: p.grad for path, p in critic.namedparams() if p.grad is not None}

    expected = gradients()
    for path, gradient in gradients(policy=policies.Fixed(1), compute_dtype='float16').items():
        error = numpy.linalg.norm(gradient - expected[path])
        assert error < 2.0**-8 * numpy.linalg.norm(expected[path]) + 1e-30, path


def test_layers_of_other_models_are_not_rounded():
    teacher = L.Linear(7, 5)
    chainerlp.convert(teacher, policies.Amax())
    teacher.W.array[...] = 1 + 2.0**-20
    model = L.Linear(7, 5)
    optimizer = adam(model, compute_dtype='float16')
    x = numpy.ones((2, 7), 'f')
    wanted = teacher(x).array

    def loss():
        numpy.testing.assert_array_equal(teacher(x).array, wanted)
        numpy.testing.assert_array_equal(F.linear(x, teacher.W, teacher.b).array, wanted)
        return F.sum(model(x))

    optimizer.update(loss)


class Tied(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(6, 5)

    def forward(self, ids, recompute=lambda function, *xs: function(*xs)):
        h = self.embed(ids)
        return F.sum(recompute(lambda x: F.linear(F.tanh(F.linear(x, self.embed.W)), self.half), h))

    @property
    def half(self):
        return F.transpose(self.embed.W)


@pytest.mark.parametrize('recompute', [lambda function, *xs: function(*xs), F.forget])
def test_what_saturates_in_a_layer_called_as_a_function_is_counted_and_told(recompute):
    model = Tied()
    model.embed.W.array[0, 0] = 1e6
    optimizer = adam(model, compute_dtype='float16')
    with pytest.warns(RuntimeWarning, match='of /embed/W left float16'):
        optimizer.update(model, numpy.arange(6, dtype='i'), recompute)
    # x once, W in both layers; once more where it is recomputed.
    assert optimizer.saturated == (3 if recompute is not F.forget else 6)


def test_nothing_to_round_is_told():
    model = L.EmbedID(6, 5)
    optimizer = adam(model, compute_dtype='float16')
    with pytest.warns(RuntimeWarning, match='depends on a float32 parameter, and no function'):
        optimizer.update(lambda: F.sum(model(numpy.arange(6, dtype='i'))))
