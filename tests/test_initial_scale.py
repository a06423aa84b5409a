"""The scale that a pass begins with, found from the first gradient."""

import chainerlp
from chainerlp import initial_scale, policies

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers


def make_model(dtype=chainer.mixed16):
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        return chainerlp.convert(L.Linear(4, 3), policies.Adaptive())


def loss_of(model, factor, cast=True):
    x = numpy.random.RandomState(1).standard_normal((8, 4)).astype(model.W.dtype)
    y = model(x)
    return F.sum(F.cast(y, 'f') if cast else y) * factor


@pytest.mark.parametrize('exponent', [-40, -30, -20, -12, -3, 0, 5])
def test_the_first_gradient_is_brought_under_a_sixteenth_of_the_largest_number(exponent):
    # gy is 2^exponent everywhere; 2^11 is the largest power of two under 65504 / 16.
    expected = min(2.0 ** (11 - exponent), 2.0**24)
    found = initial_scale.find(loss_of(make_model(), 2.0**exponent))
    assert found == (expected if 2.0**exponent * 2.0**24 > 2.0**-25 else 1.0)


def test_a_gradient_that_starts_in_float16_must_not_overflow_at_once():
    model = make_model()
    assert initial_scale.find(loss_of(model, 1.0, cast=False)) == 2.0**11
    assert initial_scale.find(loss_of(model, 2.0**-8, cast=False)) == 2.0**15


def test_it_never_exceeds_what_the_policy_allows_in_all():
    assert initial_scale.find(loss_of(make_model(), 2.0**-10), largest=1024.0) == 1024.0
    assert initial_scale.find(loss_of(make_model(), 2.0**-10), largest=1000.0) == 512.0


def test_in_float32_it_is_one():
    assert initial_scale.find(loss_of(make_model(numpy.float32), 2.0**-10)) == 1.0


def test_without_a_gradient_it_is_one():
    assert initial_scale.find(loss_of(make_model(), 0.0)) == 1.0


def test_looking_for_it_leaves_no_trace():
    model = make_model()
    model.cleargrads()
    loss = loss_of(model, 2.0**-10)
    initial_scale.find(loss)
    assert loss.grad is None and all(param.grad is None for param in model.params())
    assert model.layer_scale._held == {}


def test_auto_saves_a_gradient_that_would_be_lost_before_the_first_layer():
    gradients = {}
    for setting in (1.0, 'auto'):
        model = make_model()
        wrapped = chainerlp.AdaptiveLossScaling(
            optimizers.SGD(), policies.Amax(), initial_scale=setting
        ).setup(model)
        model.cleargrads()
        wrapped.backward(loss_of(model, 2.0**-27))
        gradients[setting] = chainerlp.unscaled_grad(model.b)
    assert not gradients[1.0].any()
    numpy.testing.assert_array_equal(gradients['auto'], numpy.full(3, 8 * 2.0**-27))
    assert wrapped.initial_scale == 2.0**24


def test_auto_waits_for_a_loss_that_is_finite():
    model = make_model()
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(), initial_scale='auto').setup(model)
    wrapped.update(lambda: loss_of(model, numpy.inf))
    assert wrapped.initial_scale == 'auto' and wrapped.skipped == 1
    wrapped.update(lambda: loss_of(model, 1.0))
    assert wrapped.initial_scale == 1024.0  # Adaptive's bound
    assert wrapped.skipped == 1
