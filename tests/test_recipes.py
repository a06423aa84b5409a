"""Whatever model and loop a Chainer user brings, it trains, or says in one line why not."""

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


def linears(*sizes, seed=0):
    numpy.random.seed(seed)
    with chainer.using_config('dtype', chainer.mixed16):
        layers = [L.Linear(a, b) for a, b in zip(sizes, sizes[1:])]
    net = chainer.Sequential(*[f for layer in layers for f in (layer, F.relu)][:-1])
    net.cleargrads()
    return net


def inputs(batch=4, size=6, seed=1):
    return numpy.random.RandomState(seed).standard_normal((batch, size)).astype('e')


def wrap(model, policy=None, **kwargs):
    optimizer = optimizers.MomentumSGD(0.05)
    return chainerlp.AdaptiveLossScaling(optimizer, policy or policies.Measured(), **kwargs).setup(
        model
    )


def true_gradients(model):
    return [chainerlp.unscaled_grad(param) for param in model.params()]


def assert_close(actual, expected, roundings=6):
    """Each gradient within a few roundings to float16, of 2^-11 of its largest entry each."""
    for a, e in zip(actual, expected):
        assert numpy.abs(a - e).max() <= roundings * 2.0**-11 * numpy.abs(e).max()


def float32_gradients(model, loss_of):
    """The gradients of the same model and loss in float32, by Chainer alone."""
    twin = chainerlp.restore(copy.deepcopy(model))
    for param in twin.params():
        param.array = param.array.astype('f')
    twin.cleargrads()
    loss_of(twin, lambda array: array.astype('f')).backward()
    return [param.grad for param in twin.params()]


SMALL = 2.0**-18  # brings gradients to where unscaled float16 loses them


def check_against_float32(model, loss_of, policy=None, roundings=6):
    optimizer = wrap(model, policy, initial_scale=2.0**10)
    model.cleargrads()
    optimizer.backward(loss_of(model, lambda array: array))
    assert_close(true_gradients(model), float32_gradients(model, loss_of), roundings)


def test_a_gan_of_two_models_and_two_losses(tmp_path):
    generator, discriminator = linears(3, 8, 6), linears(6, 8, 1, seed=1)
    both = {'generator': wrap(generator), 'discriminator': wrap(discriminator)}

    class Updater(training.updaters.StandardUpdater):
        def update_core(self):
            real = self.converter(self.get_iterator('main').next(), self.device)
            noise = inputs(len(real), 3, self.iteration)
            fake = generator(noise)
            on_real, on_fake = discriminator(real), discriminator(fake)
            both['generator'].update(lambda: F.mean(F.softplus(-on_fake)))
            fake.unchain_backward()
            both['discriminator'].update(
                lambda: F.mean(F.softplus(-on_real)) + F.mean(F.softplus(on_fake))
            )

    iterator = chainer.iterators.SerialIterator(list(inputs(16)), 4)
    trainer = training.Trainer(Updater(iterator, both), (3, 'epoch'), out=str(tmp_path))
    trainer.extend(chainerlp.extensions.ScaleReport(trigger=(1, 'iteration')))
    before = [p.array.copy() for m in (generator, discriminator) for p in m.params()]
    trainer.run()
    after = [p.array for m in (generator, discriminator) for p in m.params()]
    assert all((a != b).any() for a, b in zip(after, before))
    assert both['generator'].skipped == both['discriminator'].skipped == 0


def test_gradients_accumulate_over_micro_batches_whose_scales_differ():
    model = linears(6, 8, 3)
    optimizer = wrap(model)
    x = inputs(8)
    model.cleargrads()
    for part, factor in ((slice(0, 4), 1.0), (slice(4, 8), SMALL)):
        optimizer.backward(F.sum(F.square(model(x[part]))) * factor)
    actual = true_gradients(model)

    def loss_of(model, cast):
        first, second = (F.sum(F.square(model(cast(part)))) for part in (x[:4], x[4:]))
        return first + second * SMALL

    assert_close(actual, float32_gradients(model, loss_of))
    optimizer.update()
    assert optimizer.skipped == 0


def test_frozen_layers_stay_and_their_gradients_do_not_matter():
    model = linears(6, 8, 3)
    optimizer = wrap(model)
    model[0].disable_update()
    before = model[0].W.array.copy()
    model.cleargrads()
    optimizer.backward(F.sum(model(inputs())))
    model[0].W.grad[...] = numpy.inf
    optimizer.update()
    assert optimizer.skipped == 0
    numpy.testing.assert_array_equal(model[0].W.array, before)


def test_layers_whose_size_is_not_known_yet_are_trained():
    with chainer.using_config('dtype', chainer.mixed16):
        model = chainer.Sequential(L.Linear(8), F.relu, L.Linear(3))
        optimizer = wrap(model)
        for _ in range(3):
            optimizer.update(lambda: F.sum(F.square(model(inputs()))))
    assert model[0].W.shape == (8, 6) and optimizer.skipped == 0
    assert model[0].W.update_rule._fp32_param.dtype == numpy.float32


def test_layers_added_after_setup_are_trained_after_another_setup():
    model = linears(6, 8, 3)
    optimizer = wrap(model)
    optimizer.update(lambda: F.sum(model(inputs())))
    with chainer.using_config('dtype', chainer.mixed16):
        model.append(L.Linear(3, 2))
    optimizer.setup(model)
    before = model[-1].W.array.copy()
    optimizer.update(lambda: F.sum(model(inputs())))
    assert isinstance(model[-1], chainerlp.links.ScaledLinear)
    assert (model[-1].W.array != before).any()


def test_several_losses_on_one_graph():
    def loss_of(model, cast):
        y = model(cast(inputs()))
        return F.sum(y) * SMALL + F.sum(F.square(y))

    check_against_float32(linears(6, 8, 3), loss_of)


def test_a_loss_that_is_no_scalar_with_a_gradient_set_by_hand():
    model = linears(6, 8, 3)
    optimizer = wrap(model, initial_scale=4.0)
    y = model(inputs())
    y.grad = numpy.full_like(y.array, 0.5)
    optimizer.backward(y)

    def loss_of(model, cast):
        return F.sum(model(cast(inputs()))) * 0.5

    assert_close(true_gradients(model), float32_gradients(model, loss_of))


def test_a_model_used_twice_in_one_loss_and_shared_weights():
    def loss_of(model, cast):
        a, b = (model(cast(inputs(seed=seed))) for seed in (1, 2))
        return F.sum(F.square(a - b)) * SMALL

    check_against_float32(linears(6, 8, 3), loss_of)

    tied = linears(6, 6, 6)
    tied[2].W = tied[0].W
    check_against_float32(tied, loss_of)


class Forgetful(chainer.Chain):
    def __init__(self):
        super().__init__()
        numpy.random.seed(0)
        with self.init_scope(), chainer.using_config('dtype', chainer.mixed16):
            self.a = L.Linear(6, 6)
            self.b = L.Linear(6, 6)
            self.c = L.Linear(6, 3)

    def forward(self, x):
        h = F.relu(self.a(x))
        h = F.forget(lambda u: F.relu(self.b(u)) + u, h)
        h = F.forget(lambda u: F.relu(self.b(u)), h)
        return self.c(h)


def test_recomputation_with_forget_keeps_the_scales():
    def loss_of(model, cast):
        return F.sum(F.square(model(chainer.Variable(cast(inputs()))))) * SMALL

    check_against_float32(Forgetful(), loss_of)


class ForgetfulNorm(chainer.Chain):
    """What is recomputed begins with functions whose backward is made in float32."""

    def __init__(self):
        super().__init__()
        numpy.random.seed(0)
        with self.init_scope(), chainer.using_config('dtype', chainer.mixed16):
            self.a = L.Linear(6, 6)
            self.norm = L.LayerNormalization(6)
            self.b = L.Linear(6, 3)

    def forward(self, x):
        h = self.a(x)
        h = F.forget(lambda u: u + F.relu(self.norm(u)), h)
        return self.b(F.forget(self.norm, h))


def test_recomputation_with_forget_may_begin_with_what_is_made_in_float32():
    def loss_of(model, cast):
        return F.sum(F.square(model(chainer.Variable(cast(inputs()))))) * SMALL

    check_against_float32(ForgetfulNorm(), loss_of)


def test_an_embedding_inside_of_forget():
    numpy.random.seed(0)
    with chainer.using_config('dtype', chainer.mixed16):
        model = chainer.Sequential(L.EmbedID(5, 6), L.Linear(6, 3))
    ids = numpy.arange(8, dtype='i') % 5

    def loss_of(model, _):
        h = F.forget(lambda W: F.relu(F.embed_id(ids, W)), model[0].W)
        return F.sum(F.square(model[1](h))) * SMALL

    check_against_float32(model, loss_of)


def test_a_first_gradient_inside_of_forget_is_looked_at():
    model = linears(6, 8, 3)
    optimizer = wrap(model, initial_scale='auto')

    def loss_of(model, cast):
        h = F.relu(model[0](cast(inputs())))
        return F.mean(F.square(F.cast(F.forget(model[2], h), 'f')))

    model.cleargrads()
    optimizer.backward(loss_of(model, lambda array: array))
    assert optimizer.initial_scale > 1
    assert_close(true_gradients(model), float32_gradients(model, loss_of))


def test_recomputed_uses_of_a_layer_have_scales_of_their_own():
    model = Forgetful()
    optimizer = wrap(model, policies.Measured(interval=2))
    optimizer.initial_scale = 1.0
    for age in (1, 2, 1):
        model.cleargrads()
        optimizer.backward(F.sum(F.square(model(chainer.Variable(inputs())))) * SMALL)
        held = model.b.layer_scale._held
        assert {key: kept.age for key, kept in held.items()} == {(0, 0): age, (1, 0): age}


class OldStyleDouble(chainer.Function):
    def forward(self, inputs):
        return (inputs[0] * 2,)

    def backward(self, inputs, grad_outputs):
        return (grad_outputs[0] * 2,)


def test_old_style_functions_pass_the_scale_through():
    def loss_of(model, cast):
        return F.sum(OldStyleDouble()(model(OldStyleDouble()(cast(inputs()))))) * SMALL

    check_against_float32(linears(6, 8, 3), loss_of)


def test_a_timer_hook_and_debug_mode():
    model = linears(6, 8, 3)
    optimizer = wrap(model)
    with chainer.function_hooks.TimerHook() as hook, chainer.using_config('debug', True):
        optimizer.update(lambda: F.sum(model(inputs())))
    names = [name for name, _ in hook.call_history]
    assert names.count('ScaledLinearFunction') == 4  # two forward, two backward


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_duplicates_of_a_model_train_by_themselves(duplicate):
    model = linears(6, 8, 3)
    optimizer = wrap(model, policies.Adaptive(interval=3))
    optimizer.update(lambda: F.sum(model(inputs())))
    twin = duplicate(optimizer)
    for each in (optimizer, twin):
        for _ in range(3):
            each.update(lambda: F.sum(each.target(inputs())))  # noqa: B023 -- called here
    for a, b in zip(model.params(), twin.target.params()):
        numpy.testing.assert_array_equal(a.array, b.array)


def test_chainlists_and_repeated_blocks():
    with chainer.using_config('dtype', chainer.mixed16):
        numpy.random.seed(0)
        model = chainer.Sequential(L.Linear(6, 6), F.relu).repeat(3, mode='init')

    def loss_of(model, cast):
        return F.sum(model(cast(inputs()))) * SMALL

    check_against_float32(model, loss_of)


def test_a_gradient_penalty_by_double_backprop_in_the_graph_of_the_loss():
    model = linears(6, 8, 1)
    optimizer = wrap(model)
    x = chainer.Variable(inputs())
    y = model(x)
    (gx,) = chainer.grad([F.sum(y)], [x], enable_double_backprop=True)
    model.cleargrads()
    optimizer.backward(F.sum(F.square(gx)))
    assert chainerlp.unscaled_grad(model[0].W).any()


def test_double_backprop_of_the_scaled_pass_is_refused():
    model = linears(6, 3)
    optimizer = wrap(model)
    with pytest.raises(NotImplementedError, match='use chainer.grad'):
        optimizer.backward(F.sum(model(inputs())), enable_double_backprop=True)
    with pytest.raises(NotImplementedError, match='use chainer.grad'):
        chainerlp.backward(F.sum(model(inputs())), enable_double_backprop=True)


def test_a_forgotten_scaled_pass_is_noticed():
    model = linears(6, 3)
    optimizer = wrap(model)
    F.sum(model(inputs())).backward()
    with pytest.warns(RuntimeWarning, match=r'call optimizer.backward\(loss\) instead'):
        optimizer.update()
