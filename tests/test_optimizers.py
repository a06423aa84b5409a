"""The wrapper: attached in three lines, it trains, skips what overflowed, and recovers."""

import copy
import pickle

import chainerlp
from chainerlp import policies

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers, training
from chainer.training import extensions


def make_model(dtype=chainer.mixed16, depth=3, size=8):
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        layers = [L.Linear(size, size) for _ in range(depth - 1)] + [L.Linear(size, 3)]
        return L.Classifier(chainer.Sequential(*[f for layer in layers for f in (layer, F.relu)]))


def batch(dtype='e', seed=1, size=8):
    rng = numpy.random.RandomState(seed)
    return rng.standard_normal((16, size)).astype(dtype), rng.randint(0, 3, 16).astype('i')


def wrap(model=None, optimizer=None, **kwargs):
    wrapped = chainerlp.AdaptiveLossScaling(optimizer or optimizers.MomentumSGD(0.1), **kwargs)
    wrapped.setup(model or make_model())
    return wrapped


def parameters(model):
    return [param.array.copy() for param in model.params()]


def assert_same(actual, expected):
    for a, e in zip(actual, expected):
        numpy.testing.assert_array_equal(a, e)


OPTIMIZERS = [
    optimizers.SGD,
    optimizers.MomentumSGD,
    optimizers.NesterovAG,
    optimizers.CorrectedMomentumSGD,
    optimizers.MSVAG,
    optimizers.AdaGrad,
    optimizers.AdaDelta,
    optimizers.Adam,
    optimizers.AdamW,
    optimizers.AMSGrad,
    optimizers.AMSBound,
    optimizers.AdaBound,
    optimizers.RMSprop,
    optimizers.RMSpropGraves,
    optimizers.SMORMS3,
]


@pytest.mark.parametrize('kind', OPTIMIZERS, ids=lambda kind: kind.__name__)
def test_in_float32_training_is_chainers_bit_for_bit(kind):
    plain, model = make_model('f'), make_model('f')
    optimizer, wrapped = kind().setup(plain), wrap(model, kind(), policy=policies.Amax())
    for seed in range(3):
        optimizer.update(plain, *batch('f', seed))
        wrapped.update(model, *batch('f', seed))
    assert_same(parameters(model), parameters(plain))


@pytest.mark.parametrize('kind', OPTIMIZERS, ids=lambda kind: kind.__name__)
def test_master_copies_take_the_true_gradient_in_float32(kind):
    model = make_model()
    wrapped = wrap(model, kind(), policy=policies.Fixed(64), initial_scale=4.0)
    masters = [chainer.Parameter(param.array.astype('f')) for param in model.params()]
    reference = kind().setup(_Holder(masters))
    wrapped.update(model, *batch())
    for master, param in zip(masters, model.params()):
        master.grad = chainerlp.unscaled_grad(param)
    reference.update()
    for master, param in zip(masters, model.params()):
        assert param.dtype == numpy.float16 and param.update_rule._fp32_param.dtype == numpy.float32
        numpy.testing.assert_array_equal(param.update_rule._fp32_param.array, master.array)
        numpy.testing.assert_array_equal(param.array, master.array.astype('e'))


class _Holder(chainer.Link):
    def __init__(self, params):
        super().__init__()
        with self.init_scope():
            for i, param in enumerate(params):
                setattr(self, f'p{i:02}', param)


@pytest.mark.parametrize(
    'policy', [None, policies.Amax(), policies.Measured(), policies.Adaptive(interval=10)], ids=str
)
def test_a_mixed_precision_model_learns(policy):
    model = make_model()
    wrapped = wrap(model, policy=policy)
    before = float(model(*batch()).array)
    for _ in range(60):
        wrapped.update(model, *batch())
    assert float(model(*batch()).array) < before / 2
    assert wrapped.skipped == 0


def test_everything_else_is_the_wrapped_optimizers():
    inner = optimizers.MomentumSGD(0.1)
    wrapped = wrap(optimizer=inner)
    wrapped.lr = 0.5
    assert inner.lr == 0.5 and inner.hyperparam.lr == 0.5
    assert wrapped.target is inner.target and wrapped.epoch == 0
    wrapped.new_epoch()
    assert inner.epoch == 1
    wrapped.update(wrapped.target, *batch())
    assert wrapped.t == inner.t == 1
    with pytest.raises(AttributeError, match='no_such_thing'):
        wrapped.no_such_thing  # noqa: B018 -- the look-up is the test


def test_it_is_an_instance_of_the_wrapped_class_and_of_its_own():
    wrapped = wrap(optimizer=optimizers.MomentumSGD(0.1))
    for kind in (chainerlp.AdaptiveLossScaling, optimizers.MomentumSGD, chainer.Optimizer):
        assert isinstance(wrapped, kind)
    assert not isinstance(wrapped, optimizers.Adam)
    assert type(wrapped) is chainerlp.AdaptiveLossScaling


def test_what_the_wrapper_computes_itself_cannot_be_set():
    wrapped = wrap()
    for name in ('skipped', 'recovery'):
        with pytest.raises(AttributeError):
            setattr(wrapped, name, 0)


def test_setup_returns_the_wrapper():
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD())
    assert wrapped.setup(make_model()) is wrapped


def test_an_optimizer_that_was_set_up_already_is_wrapped_with_its_model():
    model = make_model()
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD().setup(model))
    assert isinstance(model.predictor[0], chainerlp.links.ScaledLinear)
    wrapped.update(model, *batch())
    assert all(param.update_rule._fp32_param is not None for param in model.params())


def test_a_loop_of_ones_own_does_the_same():
    model, twin = make_model(), make_model()
    by_update, by_hand = wrap(model), wrap(twin)
    by_update.update(model, *batch())
    loss = twin(*batch())
    twin.cleargrads()
    by_hand.backward(loss)
    by_hand.update()
    assert_same(parameters(twin), parameters(model))


def test_wrapped_optimizers_can_be_copied_and_pickled():
    wrapped = wrap()
    wrapped.update(wrapped.target, *batch())
    protocols = range(pickle.HIGHEST_PROTOCOL + 1)
    twins = [pickle.loads(pickle.dumps(wrapped, protocol)) for protocol in protocols]
    twins.append(copy.deepcopy(wrapped))
    wrapped.update(wrapped.target, *batch())
    for twin in twins:
        assert type(twin) is chainerlp.AdaptiveLossScaling
        assert twin.policy == wrapped.policy and twin.t == 1
        twin.update(twin.target, *batch())
        assert_same(parameters(twin.target), parameters(wrapped.target))


def spoil(param, value):
    param.grad[...] = numpy.asarray(value, param.grad.dtype)


@pytest.mark.parametrize('value', [numpy.inf, -numpy.inf, numpy.nan])
def test_an_update_with_a_gradient_that_is_not_finite_is_skipped_and_counted(value):
    model = make_model()
    wrapped = wrap(model)
    wrapped.update(model, *batch())
    before = parameters(model)
    loss = model(*batch())
    model.cleargrads()
    wrapped.backward(loss)
    spoil(model.predictor[0].b, value)
    wrapped.update()
    assert_same(parameters(model), before)
    assert wrapped.skipped == 1 and wrapped.t == 2
    wrapped.update(model, *batch())
    assert wrapped.skipped == 1
    assert any((a != b).any() for a, b in zip(parameters(model), before))


def test_after_an_overflow_scales_are_chosen_anew():
    model = make_model()
    policy = policies.Adaptive(interval=1000, max_scale=numpy.inf, max_total_scale=numpy.inf)
    wrapped = wrap(model, policy=policy, initial_scale=1.0)
    wrapped.update(model, *batch())
    layer = model.predictor[2].layer_scale
    layer._held[0, 0].total_scale = 2.0**60  # a scale from another time
    wrapped.update(model, *batch())
    assert wrapped.skipped == 1
    wrapped.update(model, *batch())
    assert wrapped.skipped == 1 and layer._held[0, 0].total_scale < 2.0**60


def test_gradients_are_kept_smaller_while_they_overflow_and_grow_back():
    model = make_model()
    wrapped = wrap(model, policy=policies.Fixed(1), initial_scale=2.0**14)
    wrapped.lr = 0  # so that what is loud stays so
    losses = []

    def loud(x, t):  # its gradients leave float16 unless the initial scale is 1/16 of what it is
        losses.append(F.sum(model.predictor(x)) * 1.0)
        return losses[-1]

    x = numpy.full((16, 8), 4, 'e')
    before = wrapped.recovery.backoff
    while wrapped.skipped == wrapped.t:
        wrapped.update(loud, x, None)
        assert wrapped.skipped < 20
    smallest = 2.0 ** -(wrapped.skipped - 1)
    assert before == 1.0 and smallest < 1.0
    skipped = wrapped.skipped
    for _ in range(5):  # the first is a try at full size, which overflows
        wrapped.update(loud, x, None)
    assert wrapped.skipped == skipped + 1 and wrapped.recovery.backoff == smallest
    for _ in range(396):
        wrapped.update(model, *batch())
    assert wrapped.recovery.backoff == min(1.0, smallest * 4)


def test_a_loss_that_is_not_finite_does_not_make_gradients_smaller():
    model = make_model()
    wrapped = wrap(model)
    x, t = batch()
    with numpy.errstate(invalid='ignore'):
        for _ in range(5):
            wrapped.update(model, x * numpy.float16(numpy.inf), t)
    assert wrapped.skipped == 5 and wrapped.recovery.backoff == 1.0
    wrapped.update(model, x, t)
    assert wrapped.skipped == 5
    assert all(numpy.isfinite(p).all() for p in parameters(model))


def test_float32_parameters_of_a_mixed_model_are_updated_by_their_true_gradient():
    numpy.random.seed(0)
    with chainer.using_config('dtype', chainer.mixed16):
        net = chainer.Sequential(L.Linear(8, 8), L.BatchNormalization(8), F.relu, L.Linear(8, 3))
    model = L.Classifier(net)
    assert net[1].gamma.dtype == numpy.float32
    wrapped = wrap(model, optimizers.SGD(1.0), initial_scale=64.0)
    before = net[1].beta.array.copy()
    loss = model(*batch())
    model.cleargrads()
    wrapped.backward(loss)
    gradient = chainerlp.unscaled_grad(net[1].beta)
    wrapped.update()
    numpy.testing.assert_array_equal(net[1].beta.array, before - gradient)
    numpy.testing.assert_array_equal(chainerlp.unscaled_grad(net[1].beta), gradient)


@pytest.mark.parametrize('initial_scale', [1, 8])
@pytest.mark.parametrize('shape', [(3,), ()])
@pytest.mark.parametrize('of_sum', [F.identity, F.square], ids=['read-only', 'shared'])
def test_float32_parameters_that_are_added_get_their_own_true_gradient(
    of_sum, shape, initial_scale
):
    class Sum(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.p = chainer.Parameter(numpy.ones(shape, 'f'))
                self.q = chainer.Parameter(numpy.ones(shape, 'f'))

        def forward(self):
            return F.sum(of_sum(self.p + self.q))

    model, twin = Sum(), Sum()
    optimizers.SGD(0.125).setup(twin).update(twin)
    wrapped = wrap(model, optimizers.SGD(0.125), initial_scale=initial_scale)
    wrapped.add_hook(chainer.optimizer_hooks.WeightDecay(1.0))  # adds in place, here 1
    wrapped.update(model)
    for param, expected in zip(model.params(), twin.params()):
        numpy.testing.assert_array_equal(param.array, expected.array - 0.125)


def test_a_loss_scale_given_to_the_updater_is_the_initial_scale():
    wrapped = wrap()
    iterator = chainer.iterators.SerialIterator(chainer.datasets.TupleDataset(*batch()), 4)
    training.updaters.StandardUpdater(iterator, wrapped, loss_scale=32.0)
    assert wrapped.initial_scale == 32.0 and wrapped.actual_optimizer._loss_scale is None


def test_chainers_dynamic_loss_scaling_is_refused():
    with pytest.raises(ValueError, match='exclude each other'):
        wrap().loss_scaling()
    scaled = optimizers.SGD()
    scaled.loss_scaling()
    with pytest.raises(ValueError, match='has a loss scale of its own'):
        chainerlp.AdaptiveLossScaling(scaled)


@pytest.mark.parametrize('bad', [0, -1.0, float('inf'), float('nan'), '8', None, True])
def test_an_initial_scale_that_is_no_positive_number_is_an_error(bad):
    with pytest.raises(
        ValueError,
        match="initial_scale must be 'auto' or a positive number from 2\\^-126 to 2\\^126, not",
    ):
        chainerlp.AdaptiveLossScaling(optimizers.SGD(), initial_scale=bad)


def test_what_is_no_gradient_method_is_an_error():
    with pytest.raises(TypeError, match='wraps a chainer.GradientMethod, not Linear'):
        chainerlp.AdaptiveLossScaling(L.Linear(2, 2))
    with pytest.raises(TypeError, match='wraps a chainer.GradientMethod, not AdaptiveLossScaling'):
        chainerlp.AdaptiveLossScaling(chainerlp.AdaptiveLossScaling(optimizers.SGD()))


def test_it_trains_under_chainers_trainer(tmp_path):
    wrapped = wrap()
    iterator = chainer.iterators.SerialIterator(chainer.datasets.TupleDataset(*batch()), 4)
    updater = training.updaters.StandardUpdater(iterator, wrapped)
    trainer = training.Trainer(updater, (3, 'epoch'), out=tmp_path)
    trainer.extend(extensions.ExponentialShift('lr', 0.5), trigger=(1, 'epoch'))
    trainer.extend(extensions.LogReport(trigger=(1, 'epoch')))
    trainer.extend(extensions.observe_lr())
    trainer.extend(extensions.snapshot(filename='snapshot'), trigger=(1, 'epoch'))
    trainer.run()
    assert wrapped.t == 12 and wrapped.epoch == 3
    assert wrapped.lr == pytest.approx(0.1 * 0.5**3)
    resumed = wrap()
    chainer.serializers.load_npz(tmp_path / 'snapshot', resumed, path='updater/optimizer:main/')
    assert resumed.t == 12


def test_a_scale_of_another_pass_does_not_multiply_the_weight_decay():
    model = make_model(numpy.float32)
    numpy.random.seed(1)
    model.add_link('aux', L.Linear(8, 3))
    wrapped = wrap(model, optimizers.SGD(0.1), initial_scale=1024)
    wrapped.add_hook(chainer.optimizer_hooks.WeightDecay(1e-2))
    before = model.aux.W.array.copy()
    x, t = batch('f')
    model.cleargrads()
    wrapped.backward(F.softmax_cross_entropy(model.aux(x), t))  # another optimizer's pass, say
    wrapped.update(model, x, t)  # of a loss that does not reach it
    numpy.testing.assert_allclose(model.aux.W.array, before * (1 - 0.1 * 1e-2), rtol=1e-6)


def test_a_plain_backward_pass_does_not_add_to_the_gradients_of_a_scaled_one():
    model = make_model()
    wrapped = wrap(model, initial_scale=64)
    loss = model(*batch())
    model.cleargrads()
    wrapped.backward(loss)
    with pytest.raises(chainer.utils.type_check.InvalidType):
        F.sum(model.predictor[2].W).backward()


@pytest.mark.parametrize(
    ('policy', 'scale_weights'), [(policies.Adaptive, None), ('amax', None), (None, 'yes')]
)
def test_what_is_no_policy_is_refused_at_once(policy, scale_weights):
    with pytest.raises(TypeError, match='must be'):
        chainerlp.AdaptiveLossScaling(optimizers.SGD(), policy, scale_weights=scale_weights)


def test_what_cannot_be_updated_is_one_line():
    with pytest.raises(RuntimeError, match='not set up'):
        chainerlp.AdaptiveLossScaling(optimizers.SGD()).update(lambda: None)
    with pytest.raises(TypeError, match='must return a chainer.Variable, not tuple'):
        wrap().update(lambda: (1, 2))


@pytest.mark.parametrize('margin', [4.0, 10.0])
def test_sums_in_a_pass_keep_the_margin_of_the_policy(margin):
    class Branches(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope(), chainer.using_config('dtype', chainer.mixed16):
                self.first = L.Linear(2, 2)
                self.second = L.Linear(2, 2)

        def forward(self, x):
            h = self.first(x)
            return F.sum(F.cast(h * 3, 'f')) + F.sum(F.cast(self.second(h), 'f')) * 1e-3

    class Largest(chainer.FunctionHook):
        found = 0.0

        def backward_preprocess(self, function, in_data, out_grad):
            if function.inputs[0].creator_node is None and in_data[0].shape == (1, 2):
                self.found = float(abs(out_grad[0]).max())  # at last: of the first layer

    model = Branches()
    wrapped = chainerlp.AdaptiveLossScaling(
        optimizers.SGD(0.0), policies.Amax(margin=margin), initial_scale=2.0**10
    ).setup(model)
    with Largest() as hook:
        wrapped.update(model, numpy.ones((1, 2), 'e'))
    limit = 65504 * 2.0**-margin
    # One branch alone brings 3 · 2^10; a power of two of scale is lost at most where that is more.
    assert min(limit, 3 * 2.0**10) / 2.1 < hook.found <= limit
