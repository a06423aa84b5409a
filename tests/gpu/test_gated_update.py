"""Updates on a GPU that change nothing where a flag on the device is not set."""

import functools

import chainerlp
from chainerlp import gated_update, grouped_update, policies
from chainerlp import optimizers as chainerlp_optimizers
from tests.gpu.agreement import CPU

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers

pytestmark = pytest.mark.gpu

OPTIMIZERS = {
    'SGD': optimizers.SGD,
    'MomentumSGD': optimizers.MomentumSGD,
    'CorrectedMomentumSGD': optimizers.CorrectedMomentumSGD,
    'NesterovAG': optimizers.NesterovAG,
    'MSVAG': optimizers.MSVAG,
    'AdaGrad': optimizers.AdaGrad,
    'AdaDelta': optimizers.AdaDelta,
    'Adam': optimizers.Adam,
    'AMSGrad': optimizers.AMSGrad,
    'AdaBound': optimizers.AdaBound,
    'AMSBound': optimizers.AMSBound,
    'RMSprop': optimizers.RMSprop,
    'RMSpropGraves': optimizers.RMSpropGraves,
    'SMORMS3': optimizers.SMORMS3,
}


@pytest.fixture
def copied(monkeypatch):
    """Returns a list of how many arrays each call copies."""
    counts, copy_unless = [], gated_update.copy_unless

    def counting(is_right, arrays, copies):
        counts.append(len(arrays))
        copy_unless(is_right, arrays, copies)

    monkeypatch.setattr(gated_update, 'copy_unless', counting)
    return counts


def wrap(device, optimizer, dtype=chainer.mixed16, **kwargs):
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        layers = L.Linear(8, 8), L.BatchNormalization(8), F.relu, L.Linear(8, 3)
        model = L.Classifier(chainer.Sequential(*layers))
    model.to_device(device)
    return chainerlp.AdaptiveLossScaling(optimizer, **kwargs).setup(model)


def batch(wrapped, seed):
    random = numpy.random.RandomState(seed)
    dtype = wrapped.target.predictor[0].W.dtype
    arrays = random.standard_normal((16, 8)).astype(dtype), random.randint(0, 3, 16).astype('i')
    return [wrapped.target.device.send(array) for array in arrays]


def train(wrapped, iterations):
    for seed in range(iterations):
        wrapped.update(wrapped.target, *batch(wrapped, seed))
    return state_of(wrapped)


def spoil(wrapped):
    """An update in which one gradient is not finite."""
    loss = wrapped.target(*batch(wrapped, 9))
    wrapped.target.cleargrads()
    wrapped.backward(loss)
    wrapped.target.predictor[0].W.grad[2, 3] = numpy.inf
    wrapped.update()


def state_of(wrapped):
    arrays = {}
    for path, param in wrapped.target.namedparams():
        rule = param.update_rule
        arrays[path] = CPU.send(param.array).copy()
        if rule._fp32_param is not None:
            arrays[path, 'master'] = CPU.send(rule._fp32_param.array).copy()
        for key, value in (rule.state or {}).items():
            arrays[path, key] = numpy.array(CPU.send(value))
    return arrays


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for key, array in expected.items():
        numpy.testing.assert_array_equal(actual[key], array, err_msg=str(key))


def test_all_of_chainers_optimizers_are_here():
    given = {kind.__name__ for kind in vars(optimizers).values() if isinstance(kind, type)}
    assert {name for name in given if not name.startswith('AdamW')} == set(OPTIMIZERS)


@pytest.mark.parametrize('size', [1, 1 << 20])
@pytest.mark.parametrize('dtype', [chainer.mixed16, numpy.float32])
@pytest.mark.parametrize('kind', OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_update_that_overflowed_leaves_no_trace_without_copies(
    device, copied, monkeypatch, kind, dtype, size
):
    monkeypatch.setattr(grouped_update, '_GROUP_SIZE', size)
    wrapped = wrap(device, kind(), dtype)
    before = train(wrapped, 2)
    spoil(wrapped)
    assert_same(state_of(wrapped), before)
    assert wrapped.skipped == 1
    assert set(copied) == {0}
    after = train(wrapped, 1)
    assert wrapped.skipped == 1
    assert any((after[key] != before[key]).any() for key in before)


@pytest.mark.parametrize('kind', OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_where_all_is_finite_it_is_chainers_update_bit_for_bit(device, monkeypatch, kind):
    gated = train(wrap(device, kind()), 4)
    monkeypatch.setattr(chainerlp_optimizers, 'can_be_gated', lambda params: False)
    assert_same(gated, train(wrap(device, kind()), 4))


class OwnRule(optimizers.momentum_sgd.MomentumSGDRule):
    """Halves the momentum, by an operation of its own."""

    def update_core_gpu(self, param):
        super().update_core_gpu(param)
        self.state['v'] /= 2


def clip_weights(rule, param):
    param.array[...] = param.xp.clip(param.array, -0.01, 0.01)


@pytest.mark.parametrize('where', ['rule', 'pre hook of a rule', 'post hook of a rule', 'hook'])
def test_what_others_write_is_taken_back_too(device, copied, where):
    wrapped = wrap(device, optimizers.MomentumSGD(0.1))
    first, frozen = wrapped.target.predictor[0].W, wrapped.target.predictor[3].b
    frozen.update_rule.enabled = False  # it has no state
    if where == 'rule':
        first.update_rule.__class__ = OwnRule
    train(wrapped, 2)
    if 'hook of a rule' in where:
        first.update_rule.add_hook(clip_weights, timing=where.split()[0])
    elif where == 'hook':
        wrapped.add_hook(lambda optimizer: clip_weights(None, first), name='clipping')
    before = state_of(wrapped)
    del copied[:]
    spoil(wrapped)
    assert_same(state_of(wrapped), before)
    # A weight and its momentum; or those of all five parameters.
    assert copied == [2 if 'rule' in where else 10] * 2


def own_update(rule, param):
    param.array[...] -= 0.1 * param.grad


@pytest.mark.parametrize('of', ['class', 'instance', 'earlier import'])
def test_who_replaces_an_update_later_is_not_trusted(device, copied, monkeypatch, of):
    wrapped = wrap(device, optimizers.SGD(0.1))
    rule = wrapped.target.predictor[0].W.update_rule
    train(wrapped, 2)
    if of == 'class':
        monkeypatch.setattr(type(rule), 'update_core_gpu', own_update)
    elif of == 'instance':
        rule.update_core_gpu = functools.partial(own_update, rule)
    else:
        monkeypatch.setattr(gated_update, '_IN_RULES', object())
    before = state_of(wrapped)
    spoil(wrapped)
    assert_same(state_of(wrapped), before)
    assert copied[-1] == (1 if of == 'instance' else 6)


def test_the_flag_is_for_this_update_alone(device):
    wrapped = wrap(device, optimizers.SGD(0.1))
    train(wrapped, 2)
    spoil(wrapped)
    param = chainer.Parameter(numpy.ones(3, 'f'))
    param.to_device(device)
    param.update_rule = optimizers.SGD(0.5).create_update_rule()
    param.grad = device.send(numpy.ones(3, 'f'))
    param.update()
    numpy.testing.assert_array_equal(CPU.send(param.array), numpy.full(3, 0.5))


def test_frozen_layers_and_hooks_that_see_them(device):
    wrapped = wrap(device, optimizers.MomentumSGD(0.1))
    wrapped.add_hook(chainer.optimizer_hooks.WeightDecay(0.1))
    wrapped.target.predictor[0].disable_update()
    before = state_of(wrapped)
    after = train(wrapped, 3)
    for path, _ in wrapped.target.namedparams():
        is_frozen = path.startswith('/predictor/0/')
        assert (after[path] == before[path]).all() == is_frozen


def test_the_host_learns_of_a_loss_that_is_not_finite_along_with_the_flag(device):
    wrapped = wrap(device, optimizers.SGD(0.1))
    train(wrapped, 2)
    loss = wrapped.target(*batch(wrapped, 2)) * numpy.float32(numpy.inf)
    wrapped.target.cleargrads()
    wrapped.backward(loss)
    wrapped.update()
    (backward_pass,) = wrapped._pending.passes
    assert wrapped.skipped == 1
    assert backward_pass.loss_is_finite is False
    assert wrapped.recovery.backoff == 1


def test_a_master_is_looked_at_only_where_somebody_may_have_changed_something(device):
    wrapped = wrap(device, optimizers.SGD(0.0))
    train(wrapped, 2)
    first = wrapped.target.predictor[0].W
    rule = first.update_rule
    fine = CPU.send(rule._fp32_param.array) + numpy.float32(2.0**-30)
    rule._fp32_param.array[...] = device.send(fine)
    train(wrapped, 1)
    numpy.testing.assert_array_equal(CPU.send(rule._fp32_param.array), fine)
    # Another way of updating, which keeps no checksums.
    rule._fp32_param.array += 1
    rule.t += 1
    train(wrapped, 1)
    numpy.testing.assert_array_equal(
        CPU.send(rule._fp32_param.array), CPU.send(first.array).astype('f')
    )
    assert abs(CPU.send(first.array)).max() < 1


@pytest.mark.parametrize('scale', ['auto', 8.0])
def test_a_model_may_be_moved_to_the_cpu(device, scale):
    wrapped = wrap(device, optimizers.MomentumSGD(0.1), policy=policies.Adaptive(interval=100))
    wrapped.initial_scale = scale
    train(wrapped, 3)
    wrapped.target.to_device(CPU)
    before = state_of(wrapped)
    after = train(wrapped, 2)
    assert wrapped.skipped == 0
    assert any((after[key] != before[key]).any() for key in before)
    wrapped.target.to_device(device)
    train(wrapped, 2)
    assert wrapped.skipped == 0
