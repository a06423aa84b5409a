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


@pytest.mark.parametrize('name', sorted(HOOKS))
def test_chainers_own_hook_gives_what_it_gives_in_float32(name):
    _, arguments = HOOKS[name]
    hook = getattr(chainer.optimizer_hooks, name)(*arguments)
    net, twin = make_net(chainer.mixed16), make_net(numpy.float32)
    wrapped = chainerlp.AdaptiveLossScaling(
        optimizers.SGD(0.5), policies.Fixed(2.0**12), initial_scale=64.0
    ).setup(net)
    plain = optimizers.SGD(0.5).setup(twin)
    for optimizer in (wrapped, plain):
        optimizer.add_hook(hook)
    net.cleargrads()
    wrapped.backward(F.sum(net(batch('e'))) * 1e-2)
    for param, single in zip(net.params(), twin.params()):
        single.grad = chainerlp.unscaled_grad(param)
    numpy.random.seed(5)  # for the noise
    wrapped.update()
    numpy.random.seed(5)
    plain.update()
    for actual, expected in zip(masters(net), twin.params()):
        numpy.testing.assert_array_equal(actual, expected.array)


def by_norm(optimizer):
    """A clipping of a user's own, for the whole optimizer."""
    params = list(optimizer.target.params())
    norm = numpy.sqrt(sum(float((p.grad.astype('f') ** 2).sum()) for p in params))
    for param in params:
        param.grad *= min(1, 1e-3 / norm)


def by_link(optimizer):
    """Another, which goes by the links of the model."""
    for link in optimizer.target.links():
        for param in link.params(include_uninit=False):
            param.grad[...] = numpy.clip(param.grad, -1e-4, 1e-4)


def weights_clipped(optimizer):
    """WGAN's."""
    for param in optimizer.target.params():
        param.array[...] = numpy.clip(param.array, -0.05, 0.05)


def weights_replaced(optimizer):
    for param in optimizer.target.params():
        param.data = numpy.clip(param.data, -0.05, 0.05)


def weight_clipping_for_each(rule, param):
    param.array = numpy.clip(param.array, -0.05, 0.05)


weight_clipping_for_each.call_for_each_param = True

OWN_HOOKS = [by_norm, by_link, weights_clipped, weights_replaced, weight_clipping_for_each]


@pytest.mark.parametrize('timing', ['pre', 'post'])
@pytest.mark.parametrize('optimizer', [optimizers.SGD, optimizers.Adam])
@pytest.mark.parametrize('hook', OWN_HOOKS, ids=lambda hook: hook.__name__)
def test_a_hook_of_ones_own_gives_what_it_gives_in_float32(hook, optimizer, timing):
    net, twin = make_net(chainer.mixed16), make_net(numpy.float32)
    wrapped = chainerlp.AdaptiveLossScaling(
        optimizer(), policies.Fixed(2.0**6), initial_scale=64.0
    ).setup(net)
    plain = optimizer().setup(twin)
    for each in (wrapped, plain):
        each.add_hook(hook, hook.__name__, timing)
    for _ in range(3):
        net.cleargrads()
        wrapped.backward(F.sum(F.square(net(batch('e')))) * 1e-2)
        for param, single in zip(net.params(), twin.params()):
            single.grad = chainerlp.unscaled_grad(param)
        wrapped.update()
        plain.update()
        for param, master, expected in zip(net.params(), masters(net), twin.params()):
            # The next gradients are of float16 weights; what is compared is one update.
            numpy.testing.assert_array_equal(master, expected.array)
            if param.dtype == numpy.float16:
                numpy.testing.assert_array_equal(param.array, expected.array.astype('e'))


def test_chainers_parameter_statistics_logs_true_gradients(tmp_path):
    observed = []
    for wrap in (True, False):
        net = make_net(chainer.mixed16 if wrap else numpy.float32)
        model = chainer.Sequential(net, F.square, F.sum)
        optimizer = optimizers.SGD(0.0)
        if wrap:
            optimizer = chainerlp.AdaptiveLossScaling(
                optimizer, policies.Fixed(2.0**6), initial_scale=4.0
            )
        optimizer.setup(model)
        data = list(batch('e' if wrap else 'f'))
        updater = chainer.training.updaters.StandardUpdater(
            chainer.iterators.SerialIterator(data, 8), optimizer
        )
        trainer = chainer.training.Trainer(updater, (1, 'iteration'), out=str(tmp_path))
        trainer.extend(
            chainer.training.extensions.ParameterStatistics(net, trigger=(1, 'iteration'))
        )
        trainer.extend(
            lambda t: observed.append(dict(t.observation)), trigger=(1, 'iteration'), priority=-10
        )
        trainer.run()
    ours, expected = observed
    keys = [key for key in expected if '/grad/' in key and key.endswith(('max', 'mean', 'std'))]
    assert keys
    for key in keys:
        numpy.testing.assert_allclose(ours[key], expected[key], rtol=2.0**-7, atol=2.0**-8)


@pytest.mark.parametrize('large', [1e20, 3e38])
def test_clipping_a_norm_that_leaves_float32(large):
    model = chainer.Sequential(L.Linear(3, 2), L.Linear(2, 2))
    model[0].W.array = model[0].W.array.astype('e')
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(1.0)).setup(model)
    wrapped.add_hook(optimizer_hooks.GradientClipping(1.0))
    before = {path: p.array.copy() for path, p in model.namedparams()}
    for param in model.params():
        param.grad = numpy.full(param.shape, 1, param.dtype)
    model[1].W.grad[...] = large
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # gradients that are set by hand
        wrapped.update()
    moved = before['/1/W'] - model[1].W.array
    numpy.testing.assert_allclose(moved, 0.5, rtol=1e-3)  # 4 equal elements, of norm 1 together
    assert wrapped.skipped == 0


@pytest.mark.parametrize('kind', [optimizers.SGD, optimizers.Adam, optimizers.MomentumSGD])
def test_a_wrapped_optimizer_is_an_instance_of_its_class(kind):
    wrapped = chainerlp.AdaptiveLossScaling(kind())
    assert isinstance(wrapped, chainer.Optimizer) and isinstance(wrapped, kind)
    assert isinstance(wrapped, chainerlp.AdaptiveLossScaling)


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


def test_hooks_that_were_there_before_wrapping_see_true_gradients():
    model = make_net(chainer.mixed16)
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
