"""Updates that are taken back where a gradient was not finite, of which the host learns late.

They are for GPUs; here the CPU takes their way.
"""

import copy
import pickle

import chainerlp
from chainerlp import optimizers as chainerlp_optimizers
from chainerlp import policies

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers

OPTIMIZERS = [
    optimizers.SGD,
    optimizers.MomentumSGD,
    optimizers.NesterovAG,
    optimizers.MSVAG,
    optimizers.AdaGrad,
    optimizers.AdaDelta,
    optimizers.Adam,
    optimizers.AMSGrad,
    optimizers.AdaBound,
    optimizers.RMSprop,
    optimizers.RMSpropGraves,
    optimizers.SMORMS3,
]


def have_been_updated(params):
    return bool(params) and all(param.update_rule.state is not None for param in params)


def treat_as_gpu(monkeypatch):
    monkeypatch.setattr(chainerlp_optimizers, 'can_be_gated', have_been_updated)


@pytest.fixture
def late(monkeypatch):
    """Lets the CPU be treated as a GPU, whose copies are NumPy's."""
    treat_as_gpu(monkeypatch)


@pytest.fixture
def runs(monkeypatch):
    """Counts the updates that went the late way."""
    counted = []
    run = chainerlp_optimizers.counters_of
    monkeypatch.setattr(
        chainerlp_optimizers, 'counters_of', lambda params: counted.append(1) or run(params)
    )
    return counted


def wrap(optimizer=None, dtype=chainer.mixed16, **kwargs):
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        layers = [L.Linear(8, 8), L.BatchNormalization(8), F.relu, L.Linear(8, 3)]
        model = L.Classifier(chainer.Sequential(*layers))
    wrapped = chainerlp.AdaptiveLossScaling(optimizer or optimizers.MomentumSGD(0.1), **kwargs)
    return wrapped.setup(model)


def batch(seed, dtype='e'):
    rng = numpy.random.RandomState(seed)
    return rng.standard_normal((16, 8)).astype(dtype), rng.randint(0, 3, 16).astype('i')


def state_of(wrapped):
    arrays = {}
    for path, param in wrapped.target.namedparams():
        rule = param.update_rule
        arrays[path] = param.array.copy()
        if rule._fp32_param is not None:
            arrays[path, 'master'] = rule._fp32_param.array.copy()
        for key, value in (rule.state or {}).items():
            if isinstance(value, numpy.ndarray) and value.ndim > 0:
                arrays[path, key] = value.copy()
    return arrays


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for key, array in expected.items():
        numpy.testing.assert_array_equal(actual[key], array, err_msg=str(key))


def spoil(wrapped, *args):
    """An update in which one gradient is not finite."""
    loss = wrapped.target(*args)
    wrapped.target.cleargrads()
    wrapped.backward(loss)
    wrapped.target.predictor[0].W.grad[2, 3] = numpy.inf
    wrapped.update()


def numbers_of(wrapped):
    """What update rules count on the host: t, and MSVAG's power of beta."""
    return [
        {name: value for name, value in vars(p.update_rule).items() if type(value) in (int, float)}
        for p in wrapped.target.params()
    ]


@pytest.mark.parametrize('dtype', [chainer.mixed16, numpy.float32])
@pytest.mark.parametrize('kind', OPTIMIZERS, ids=lambda kind: kind.__name__)
def test_an_update_that_overflowed_leaves_no_trace(late, runs, kind, dtype):
    wrapped = wrap(kind(), dtype)
    kind_of_x = 'f' if dtype == numpy.float32 else 'e'
    for seed in range(2):
        wrapped.update(wrapped.target, *batch(seed, kind_of_x))
    before, numbers = state_of(wrapped), numbers_of(wrapped)
    with numpy.errstate(all='ignore'):
        spoil(wrapped, *batch(2, kind_of_x))
    assert_same(state_of(wrapped), before)
    assert wrapped.skipped == 1 and numbers_of(wrapped) == numbers
    assert len(runs) == 2  # the first update has to make the optimizer's state
    assert wrapped.skipped == 1
    wrapped.update(wrapped.target, *batch(3, kind_of_x))
    after = state_of(wrapped)
    assert wrapped.skipped == 1 and all(numpy.isfinite(a).all() for a in after.values())
    assert any((after[key] != before[key]).any() for key in before)


def train(wrapped, spoiled=(), iterations=12):
    for seed in range(iterations):
        if seed in spoiled:
            with numpy.errstate(all='ignore'):
                spoil(wrapped, *batch(seed))
        else:
            wrapped.update(wrapped.target, *batch(seed))
    return state_of(wrapped)


@pytest.mark.parametrize('policy', [policies.Adaptive(), policies.Amax(), policies.Fixed(1)])
def test_a_late_verdict_changes_nothing_where_all_is_finite(monkeypatch, policy):
    expected = train(wrap(policy=policy))
    treat_as_gpu(monkeypatch)
    assert_same(train(wrap(policy=policy)), expected)


def test_an_overflow_is_skipped_as_it_is_on_the_cpu(monkeypatch):
    expected = train(wrap(), spoiled=[3])
    treat_as_gpu(monkeypatch)
    wrapped = wrap()
    assert_same(train(wrapped, spoiled=[3]), expected)
    assert wrapped.skipped == 1 and wrapped.t == 12


def test_the_host_learns_of_an_overflow_when_it_comes_to_the_next_update(late):
    wrapped = wrap(policy=policies.Adaptive(interval=100), initial_scale=1.0)
    train(wrapped, iterations=2)
    layer_scale = wrapped.target.predictor[3].layer_scale
    assert layer_scale._held[0, 0].age == 2
    with numpy.errstate(all='ignore'):
        spoil(wrapped, *batch(2))
    assert layer_scale._held[0, 0].age == 3  # it does not know yet
    wrapped.update(wrapped.target, *batch(3))
    assert not layer_scale._held  # the next pass chooses anew
    wrapped.update(wrapped.target, *batch(4))
    assert layer_scale._held[0, 0].age == 1


def test_an_overflow_before_the_host_could_react_is_no_reason_to_back_off(late):
    wrapped = wrap()
    train(wrapped, spoiled=[3, 4], iterations=6)
    assert wrapped.skipped == 2 and wrapped.recovery.backoff == 1
    train(wrapped, spoiled=[0, 1, 2, 3], iterations=4)
    assert wrapped.skipped == 6 and wrapped.recovery.backoff == 0.25


def test_what_is_asked_for_waits_for_the_last_update(late):
    for ask in (pickle.dumps, copy.deepcopy, lambda wrapped: wrapped.skipped):
        wrapped = wrap()
        train(wrapped, iterations=2)
        with numpy.errstate(all='ignore'):
            spoil(wrapped, *batch(2))
        assert wrapped._recovery.skipped == 0
        ask(wrapped)
        assert wrapped._recovery.skipped == 1


def test_a_snapshot_waits_for_the_last_update(late, tmp_path):
    wrapped = wrap()
    with numpy.errstate(all='ignore'):
        train(wrapped, iterations=2)
        spoil(wrapped, *batch(2))
    chainer.serializers.save_npz(tmp_path / 'snapshot.npz', wrapped)
    loaded = wrap()
    train(loaded, spoiled=[0], iterations=1)  # its own verdict is not the snapshot's
    chainer.serializers.load_npz(tmp_path / 'snapshot.npz', loaded)
    assert loaded.skipped == 1


def test_state_of_a_parameter_without_axes_is_put_back_too(late):
    class Tempered(chainer.Chain):
        def __init__(self):
            super().__init__()
            numpy.random.seed(0)
            with self.init_scope(), chainer.using_config('dtype', chainer.mixed16):
                self.fc = L.Linear(8, 3)
                self.temperature = chainer.Parameter(numpy.float16(1), ())

        def forward(self, x, t):
            y = self.fc(x)
            return F.softmax_cross_entropy(y * F.broadcast_to(self.temperature, y.shape), t)

    model = Tempered()
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.MomentumSGD(0.1)).setup(model)
    for seed in range(2):
        wrapped.update(model, *batch(seed))
    velocity = float(model.temperature.update_rule.state['v'])
    loss = model(*batch(2))
    model.cleargrads()
    wrapped.backward(loss)
    model.temperature.grad[...] = numpy.inf
    wrapped.update()
    assert float(model.temperature.update_rule.state['v']) == velocity
    assert wrapped.skipped == 1 and numpy.isfinite(model.temperature.array)


def test_parameters_without_a_gradient_and_counts_are_put_back_too(late):
    wrapped = wrap(optimizers.Adam())
    train(wrapped, iterations=2)
    before = state_of(wrapped)
    loss = wrapped.target(*batch(2))
    wrapped.target.cleargrads()
    wrapped.backward(loss)
    wrapped.target.predictor[0].W.cleargrad()
    wrapped.target.predictor[3].W.grad[0, 0] = numpy.inf
    with numpy.errstate(all='ignore'):
        wrapped.update()
    assert_same(state_of(wrapped), before)
    assert wrapped.skipped == 1
    assert {param.update_rule.t for param in wrapped.target.params()} == {2}


def test_frozen_parameters_are_left_out(late):
    wrapped = wrap()
    train(wrapped, iterations=2)
    wrapped.target.predictor[0].disable_update()
    before = state_of(wrapped)
    train(wrapped, iterations=2)
    after = state_of(wrapped)
    frozen = {key for key in before if '/predictor/0/' in str(key)}
    assert frozen and all((before[key] == after[key]).all() for key in frozen)
