"""Updates that are made for a group of parameters after another."""

import chainerlp
from chainerlp import gated_update, grouped_update, true_gradients

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizer_hooks, optimizers


def model_of(dtype=chainer.mixed16):
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        layers = L.Linear(6, 7), L.BatchNormalization(7), F.relu, L.Linear(7, 3)
        return L.Classifier(chainer.Sequential(*layers))


def batch(seed):
    random = numpy.random.RandomState(seed)
    return random.standard_normal((8, 6)).astype('e'), random.randint(0, 3, 8).astype('i')


def trained(optimizer, model=None, hooks=(), prepare=lambda model: None):
    model = model or model_of()
    wrapped = chainerlp.AdaptiveLossScaling(optimizer).setup(model)
    prepare(model)
    for hook in hooks:
        wrapped.add_hook(hook)
    for seed in range(3):
        wrapped.update(model, *batch(seed))
    return wrapped


def assert_same(wrapped, expected):
    assert wrapped.t == expected.t
    for param, same in zip(wrapped.target.params(), expected.target.params()):
        assert param.update_rule.t == same.update_rule.t
        numpy.testing.assert_array_equal(param.array, same.array)
        for key, state in same.update_rule.state.items():
            numpy.testing.assert_array_equal(param.update_rule.state[key], state)


class OwnUpdate(optimizers.MomentumSGD):
    """An optimizer that cannot be known to update one parameter after another."""

    calls = 0

    def update(self, lossfun=None, *args, **kwargs):
        self.calls += 1
        super().update(lossfun, *args, **kwargs)


def with_rule_hooks(model):
    for param in model.params():
        param.update_rule.add_hook(optimizer_hooks.WeightDecay(0.1))


@pytest.mark.parametrize('prepare', [lambda model: None, with_rule_hooks], ids=['', 'hooks'])
@pytest.mark.parametrize('size', [1, 30, 1 << 20])
def test_groups_of_any_size_are_updated_as_the_whole(monkeypatch, size, prepare):
    whole = OwnUpdate(0.1)
    expected = trained(whole, prepare=prepare)
    assert whole.calls == 3
    monkeypatch.setattr(grouped_update, '_GROUP_SIZE', size)
    assert_same(trained(optimizers.MomentumSGD(0.1), prepare=prepare), expected)


@pytest.mark.parametrize('part', grouped_update._PARTS)
@pytest.mark.parametrize('of', ['class', 'instance', 'hook'])
def test_an_optimizer_with_parts_or_hooks_of_its_own_updates_as_a_whole(monkeypatch, part, of):
    kind = type('Own', (optimizers.MomentumSGD,), {})
    optimizer, forms = kind(0.1), []
    form = grouped_update.form
    monkeypatch.setattr(grouped_update, '_GROUP_SIZE', 1)
    monkeypatch.setattr(
        grouped_update, 'form', lambda ps: forms.append(len(ps := list(ps))) or form(ps)
    )
    if of == 'class':
        method = getattr(kind, part)
        setattr(kind, part, lambda self, *args, **kwargs: method(self, *args, **kwargs))
    elif of == 'instance':
        vars(optimizer)[part] = getattr(optimizer, part)
    hooks = [optimizer_hooks.GradientClipping(1.0)] if of == 'hook' else []
    trained(optimizer, hooks=hooks)
    assert forms == [6] * 3


def test_a_parameter_is_never_split_and_none_is_left_out():
    params = [chainer.Parameter(numpy.zeros(n, 'f')) for n in (5, 1, 1, 9, 2)]
    params.insert(2, chainer.Parameter())
    groups = [[p.size if p.array is not None else None for p in g] for g in grouped(params, 4)]
    assert groups == [[5], [1, None, 1], [9], [2]]
    assert grouped([], 4) == []


def grouped(params, size):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(grouped_update, '_GROUP_SIZE', size)
        return list(grouped_update._groups(params))


def test_true_gradients_are_there_for_a_group_only(monkeypatch):
    monkeypatch.setattr(grouped_update, '_GROUP_SIZE', 1)
    model, seen = model_of(), {}

    class Look(optimizers.momentum_sgd.MomentumSGDRule):
        def update_core(self, param):
            names = {id(p): path for path, p in model.namedparams()}
            halves = [p for p in model.params() if true_gradients.is_held_scaled(p)]
            seen[names[id(param)]] = {names[id(p)] for p in halves}
            assert param.grad.dtype == param.dtype == numpy.float32
            super().update_core(param)

    def look(model):
        for param in model.params():
            param.update_rule.__class__ = Look

    trained(optimizers.MomentumSGD(0.1), model, prepare=look)
    halves = {path for path, p in model.namedparams() if p.dtype == numpy.float16}
    assert len(halves) == 4
    assert seen == {path: halves - {path} for path in seen} and len(seen) == 6
    assert halves == {path for path, p in model.namedparams() if true_gradients.is_held_scaled(p)}


def clear(rule, param):
    param.cleargrad()


def test_what_hooks_of_rules_make_of_gradients_stays():
    """As hooks of the optimizer do; and it does not depend on whether somebody looks in between."""
    totals = []
    for look in (False, True):
        model = model_of()
        wrapped = trained(optimizers.SGD(0.1), model)
        with_rule_hooks(model)
        loss = model(*batch(3))
        model.cleargrads()
        wrapped.backward(loss)
        before = chainerlp.unscaled_grad(model.predictor[0].W)
        wrapped.update()
        if look:
            assert (model.predictor[0].W.grad != before).any()
        wrapped.update()
        totals.append([param.array.copy() for param in model.params()])
    for one, other in zip(*totals):
        numpy.testing.assert_array_equal(one, other)


def test_a_hook_may_clear_the_gradient_after_an_update():
    results = []
    for in_hook in (False, True):
        model = model_of()
        wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.1)).setup(model)
        for param in model.params():
            if in_hook:
                param.update_rule.add_hook(clear, timing='post')
        model.cleargrads()
        for seed in range(3):
            wrapped.backward(model(*batch(seed)))
            wrapped.update()
            if not in_hook:
                model.cleargrads()
        results.append([param.array for param in model.params()])
    for one, other in zip(*results):
        numpy.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('hook', [optimizer_hooks.WeightDecay(0.1), optimizer_hooks.Lasso(0.1)])
def test_hooks_of_the_optimizer_meet_frozen_layers(hook):
    model = model_of()
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.MomentumSGD(0.1)).setup(model)
    wrapped.add_hook(hook)
    model.predictor[0].disable_update()
    before = [param.array.copy() for param in model.params()]
    for seed in range(3):
        wrapped.update(model, *batch(seed))
    for (path, param), array in zip(sorted(model.namedparams()), before):
        assert param.dtype == array.dtype
        is_frozen = path.startswith('/predictor/0/')
        assert (param.array == array).all() == is_frozen


def test_parameters_that_the_optimizer_does_not_know_are_left_alone():
    model = model_of()
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.1)).setup(model)
    with model.init_scope():
        model.late = chainer.Parameter(numpy.ones(3, 'e'))

    def loss(*args):
        return model(*args) + F.sum(model.late**2)

    wrapped.update(loss, *batch(0))
    numpy.testing.assert_array_equal(model.late.array, numpy.ones(3))
    numpy.testing.assert_array_equal(model.late.grad, numpy.full(3, 2))


def test_a_count_of_updates_is_what_chainer_shows_to_rules():
    seen = []

    def look(rule, param):
        seen.append((rule.t, wrapped.t))

    model = model_of()
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.1)).setup(model)
    model.predictor[0].W.update_rule.add_hook(look)
    for seed in range(2):
        wrapped.update(model, *batch(seed))
    assert seen == [(1, 1), (2, 2)]


def test_parameters_without_a_gradient_go_on_by_their_momentum():
    model = model_of()
    wrapped = trained(optimizers.MomentumSGD(0.1), model)
    loss = model(*batch(3))
    model.cleargrads()
    wrapped.backward(loss)
    first = model.predictor[0].W
    first.cleargrad()
    before, velocity = first.update_rule._fp32_param.array.copy(), first.update_rule.state['v'] + 0
    wrapped.update()
    after = first.update_rule._fp32_param.array
    numpy.testing.assert_array_equal(after, before + numpy.float32(0.9) * velocity)


def test_which_hooks_are_known_to_write_to_gradients_alone():
    def own(rule, param):
        pass

    assert not gated_update.writes_to_gradients_alone(own)
    own.writes_to_gradients_alone = True
    assert gated_update.writes_to_gradients_alone(own)
    assert not gated_update.writes_to_gradients_alone(chainer.Link())
    for hook in (optimizer_hooks.WeightDecay(1), chainerlp.optimizer_hooks.GradientClipping(1)):
        assert gated_update.writes_to_gradients_alone(hook)
