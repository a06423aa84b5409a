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


def trained(optimizer, model=None, hooks=()):
    model = model or model_of()
    wrapped = chainerlp.AdaptiveLossScaling(optimizer).setup(model)
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


HOOKS = {
    'none': lambda: [],
    'decay': lambda: [optimizer_hooks.WeightDecay(0.1), optimizer_hooks.Lasso(0.01)],
    'clipping': lambda: [optimizer_hooks.GradientClipping(0.1), optimizer_hooks.WeightDecay(0.1)],
    'own clipping': lambda: [chainerlp.optimizer_hooks.GradientClipping(0.1)],
}


@pytest.mark.parametrize('size', [1, 30, 1 << 20])
@pytest.mark.parametrize('hooks', HOOKS.values(), ids=HOOKS)
def test_groups_of_any_size_are_updated_as_the_whole(monkeypatch, hooks, size):
    whole = OwnUpdate(0.1)
    expected = trained(whole, hooks=hooks())
    assert whole.calls == 3
    monkeypatch.setattr(grouped_update, '_GROUP_SIZE', size)
    assert_same(trained(optimizers.MomentumSGD(0.1), hooks=hooks()), expected)


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
    seen = {}

    class Look(optimizer_hooks.WeightDecay):
        writes_to_gradients_alone = True

        def __call__(self, rule, param):
            names = {id(p): path for path, p in model.namedparams()}
            halves = [p for p in model.params() if true_gradients.is_held_scaled(p)]
            seen[names[id(param)]] = {names[id(p)] for p in halves}
            assert param.grad.dtype == param.dtype == numpy.float32

    model = model_of()
    trained(optimizers.MomentumSGD(0.1), model, [Look(0.1)])
    halves = {path for path, p in model.namedparams() if p.dtype == numpy.float16}
    assert len(halves) == 4
    assert seen == {path: halves - {path} for path in seen} and len(seen) == 6
    for param in model.params():
        assert param.grad.dtype == numpy.float32  # still what it was, for who looks at it


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
    for hook in (optimizer_hooks.WeightDecay(1), chainerlp.optimizer_hooks.GradientClipping(1)):
        assert gated_update.writes_to_gradients_alone(hook)


def test_a_hook_that_is_not_known_sees_all_parameters_before_any_is_updated(monkeypatch):
    monkeypatch.setattr(grouped_update, '_GROUP_SIZE', 1)
    seen = []

    def look(rule, param):
        seen.append([p.update_rule.t for p in model.params()])

    look.call_for_each_param = True
    look.name = 'look'
    model = model_of()
    trained(optimizers.MomentumSGD(0.1), model, [look])
    assert seen == [[t] * 6 for t in range(3) for _ in range(6)]
