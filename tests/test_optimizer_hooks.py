"""Optimizer hooks see true gradients, whatever their scales."""

import copy
import pickle
import warnings

import chainerlp
from chainerlp import optimizer_hooks, policies

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers

HOOKS = {
    'WeightDecay': (chainer.optimizer_hooks.WeightDecay, (0.01,)),
    'Lasso': (optimizer_hooks.Lasso, (0.01,)),
    'GradientHardClipping': (optimizer_hooks.GradientHardClipping, (-1e-3, 2e-3)),
    'GradientNoise': (optimizer_hooks.GradientNoise, (0.01,)),
    'GradientLARS': (optimizer_hooks.GradientLARS, (1e-3, 1e-2)),
    'GradientClipping': (optimizer_hooks.GradientClipping, (1e-2,)),
}


def make_net(dtype):
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        net = chainer.Sequential(L.Linear(6, 5), L.BatchNormalization(5), F.relu, L.Linear(5, 3))
    for param in net.params():
        param.array[...] = param.array.astype(numpy.float16)
    return net


def batch(dtype):
    rng = numpy.random.RandomState(1)
    return rng.standard_normal((8, 6)).astype(dtype)


def masters(net):
    copies = [param.update_rule._fp32_param for param in net.params()]
    return [
        param.array if copy is None else copy.array for param, copy in zip(net.params(), copies)
    ]


@pytest.mark.parametrize('name', sorted(HOOKS))
def test_a_hook_does_to_master_copies_what_chainers_does_to_true_gradients(name):
    kind, arguments = HOOKS[name]
    net, twin = make_net(chainer.mixed16), make_net(numpy.float32)
    wrapped = chainerlp.AdaptiveLossScaling(
        optimizers.SGD(0.5), policies.Fixed(2.0**12), initial_scale=64.0
    ).setup(net)
    wrapped.add_hook(kind(*arguments))
    plain = optimizers.SGD(0.5).setup(twin)
    plain.add_hook(getattr(chainer.optimizer_hooks, name)(*arguments))
    loss = F.sum(net(batch('e'))) * 1e-2
    net.cleargrads()
    wrapped.backward(loss)
    for param, single in zip(net.params(), twin.params()):
        single.grad = chainerlp.unscaled_grad(param)
    numpy.random.seed(5)  # for the noise
    wrapped.update()
    numpy.random.seed(5)
    plain.update()
    for actual, expected in zip(masters(net), twin.params()):
        assert actual.dtype == numpy.float32
        # A few operations in float32, in another order for GradientClipping.
        numpy.testing.assert_allclose(actual, expected.array, rtol=2e-6, atol=1e-9)


def test_clipping_at_a_norm_that_is_not_reached_changes_nothing():
    results = []
    for threshold in (None, 1e6):
        net = make_net(chainer.mixed16)
        wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.5)).setup(net)
        if threshold:
            wrapped.add_hook(optimizer_hooks.GradientClipping(threshold))
        wrapped.update(lambda x: F.sum(wrapped.target(x)), batch('e'))  # noqa: B023 -- called here
        results.append([param.array for param in net.params()])
    for a, b in zip(*results):
        numpy.testing.assert_array_equal(a, b)


def test_clipping_gradients_that_are_all_zero_leaves_them():
    net = make_net(chainer.mixed16)
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.5)).setup(net)
    wrapped.add_hook(optimizer_hooks.GradientClipping(5.0))
    before = [param.array.copy() for param in net.params()]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        wrapped.update(lambda x: F.sum(net(x)) * 0, batch('e'))
    for param, array in zip(net.params(), before):
        numpy.testing.assert_array_equal(param.array, array)


@pytest.mark.parametrize('name', sorted(set(HOOKS) - {'WeightDecay'}))
def test_chainers_own_hook_is_refused_and_the_right_one_named(name):
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD()).setup(make_net('e'))
    own = getattr(chainer.optimizer_hooks, name)(*HOOKS[name][1])
    with pytest.raises(TypeError, match=f'add chainerlp.optimizer_hooks.{name} instead'):
        wrapped.add_hook(own)


@pytest.mark.parametrize('name', sorted(set(HOOKS) - {'WeightDecay', 'GradientClipping'}))
def test_a_hook_works_on_true_gradients_under_chainers_static_loss_scale_too(name):
    kind, arguments = HOOKS[name]
    scaled, true = (chainer.Parameter(numpy.full(4, 0.5, 'f')) for _ in range(2))
    gradient = numpy.array([1e-3, -1e-2, 3e-2, 0.25], 'f')
    scaled.grad, scaled._loss_scale = gradient * 256, 256.0
    true.grad = gradient.copy()
    rule = optimizers.SGD().create_update_rule()
    rule.t = 1
    numpy.random.seed(3)
    kind(*arguments)(rule, scaled)
    numpy.random.seed(3)
    getattr(chainer.optimizer_hooks, name)(*arguments)(rule, true)
    numpy.testing.assert_allclose(scaled.grad / 256, true.grad, rtol=1e-6)


def test_a_hook_of_ones_own_for_each_parameter_sees_the_true_gradient_in_float32():
    seen = []

    def hook(rule, param):
        seen.append((param.dtype, float(abs(param.grad).max())))

    hook.name, hook.call_for_each_param, hook.timing = 'mine', True, 'pre'
    net = chainer.Sequential(L.Linear(6, 3))
    net[0].W.array, net[0].b.array = (p.array.astype('e') for p in (net[0].W, net[0].b))
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(), initial_scale=512.0).setup(net)
    wrapped.add_hook(hook)
    wrapped.update(lambda x: F.sum(net(x)), numpy.ones((2, 6), 'e'))
    assert seen == [(numpy.float32, 2.0), (numpy.float32, 2.0)]
    wrapped.remove_hook('mine')
    wrapped.update(lambda x: F.sum(net(x)), numpy.ones((2, 6), 'e'))
    assert len(seen) == 2


def test_a_hook_for_the_whole_optimizer_is_added_and_removed():
    calls = []
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD()).setup(make_net('f'))
    wrapped.add_hook(lambda optimizer: calls.append(optimizer), name='mine')
    wrapped.update(lambda x: F.sum(wrapped.target(x)), batch('f'))
    assert calls == [wrapped.actual_optimizer]
    wrapped.remove_hook('mine')
    with pytest.raises(KeyError):
        wrapped.remove_hook('mine')


def test_adding_a_hook_before_setup_is_chainers_error():
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD())
    with pytest.raises(RuntimeError, match='not set up'):
        wrapped.add_hook(chainer.optimizer_hooks.WeightDecay(0.1))


def test_a_frozen_layers_gradient_is_not_clipped_by_nor_does_it_spoil_the_others():
    for bad in (numpy.inf, numpy.nan):
        model = make_net(chainer.mixed16)
        wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.1)).setup(model)
        wrapped.add_hook(optimizer_hooks.GradientClipping(1.0))
        model[0].disable_update()
        before = model[3].W.array.copy()
        loss = F.sum(model(batch('e')) * 1e-2)
        model.cleargrads()
        wrapped.backward(loss)
        model[0].W.grad[0, 0] = bad
        wrapped.update()
        assert wrapped.skipped == 0
        assert numpy.isfinite(model[3].W.array).all() and (model[3].W.array != before).any()


def test_hooks_that_were_there_before_wrapping_are_checked_and_taken_over():
    model = make_net(chainer.mixed16)
    inner = optimizers.SGD(0.1).setup(model)
    inner.add_hook(chainer.optimizer_hooks.GradientClipping(1.0))
    with pytest.raises(TypeError, match='add chainerlp.optimizer_hooks.GradientClipping instead'):
        chainerlp.AdaptiveLossScaling(inner)
    seen = []

    def look(rule, param):
        seen.append((param.dtype, param._loss_scale))

    look.call_for_each_param = True
    inner = optimizers.SGD(0.1).setup(model)
    inner.add_hook(look)
    wrapped = chainerlp.AdaptiveLossScaling(inner, initial_scale=64)
    wrapped.update(lambda: F.sum(model(batch('e'))))
    assert seen and set(seen) == {(numpy.dtype('f'), None)}


def test_a_hook_may_keep_state_in_the_update_rule():
    def count(rule, param):
        rule.seen = getattr(rule, 'seen', 0) + 1

    count.call_for_each_param = True
    model = make_net(chainer.mixed16)
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.1)).setup(model)
    wrapped.add_hook(count)
    for _ in range(3):
        wrapped.update(lambda: F.sum(model(batch('e'))))
    assert {param.update_rule.seen for param in model.params()} == {3}


def test_an_optimizer_with_a_hook_can_be_copied_and_pickled():
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.1)).setup(make_net(chainer.mixed16))
    wrapped.add_hook(chainer.optimizer_hooks.WeightDecay(1e-2))
    for twin in (copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))):
        twin.update(lambda twin=twin: F.sum(twin.target(batch('e'))))
