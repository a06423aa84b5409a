"""Trainings of float32 models that compute in a lower format: whole updates, functions, loops."""

import copy

import chainerlp
from chainerlp import policies
from chainerlp.scaled_array import ScaledArray

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers, serializers


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


def test_backoff_is_not_made_up_for():
    link = chainerlp.convert(L.Linear(3, 2), policies.Amax(), compute_dtype='float16')
    gy = numpy.random.RandomState(0).standard_normal((4, 2)).astype('f')
    scales = []
    for backoff in (1.0, 2.0**-5):
        y = link(chainer.Variable(numpy.ones((4, 3), 'f')))
        y.creator.backward_scaled(
            (0, 1), ScaledArray(gy * numpy.float32(backoff), backoff), backoff
        )
        scales.append(y.creator.scale)
    assert scales[0] == scales[1]


def test_a_float32_head_leaves_the_initial_scale_to_the_float16_layers_below():
    class Mixed(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                with chainer.using_config('dtype', chainer.mixed16):
                    self.body = L.Linear(4, 4)
                self.head = L.Linear(4, 2)

        def forward(self, x):
            return F.sum(self.head(F.cast(F.tanh(self.body(x)), 'float32'))) * 1e-6

    model = Mixed()
    optimizer = adam(model, policy=policies.Amax(), compute_dtype='float16')
    for _ in range(2):
        optimizer.update(model, numpy.ones((3, 4), 'e'))
    assert optimizer.initial_scale > 1


def test_a_trial_leaves_the_scales_that_are_kept():
    model = network()
    optimizer = adam(model, policy=policies.Amax(interval=5), compute_dtype='float16')
    train(model, optimizer, 2)

    def held():
        scales = [link.layer_scale for link in model.links() if hasattr(link, 'layer_scale')]
        return [(dict(scale._held), [h.age for h in scale._held.values()]) for scale in scales]

    before = copy.deepcopy(held())
    optimizer.trial(model, *batch(7))
    assert held() == before
