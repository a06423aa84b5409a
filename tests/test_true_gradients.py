"""The true gradients that variables hold."""

import copy
import ctypes
import pickle
import warnings

import chainerlp
from chainerlp import policies, true_gradients
from chainerlp.scaled_array import ScaledArray

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest


def test_the_gradient_of_a_parameter_carries_the_loss_scale_of_chainers_backward():
    param = chainer.Parameter(numpy.zeros(2, numpy.float16))
    assert true_gradients.gradient_of(param) is None
    param.grad = numpy.ones(2, numpy.float16)
    assert true_gradients.gradient_of(param).scale == 1
    param._loss_scale = 4.0
    numpy.testing.assert_array_equal(true_gradients.gradient_of(param).true(), [0.25, 0.25])


def test_a_half_parameter_may_hold_its_true_gradient_in_float32():
    param = chainer.Parameter(numpy.zeros(2, numpy.float16))
    true_gradients.set_true_gradient(param, numpy.full(2, 1e-12, numpy.float32))
    param.grad *= 0.5
    assert param.grad.dtype == numpy.float32
    numpy.testing.assert_allclose(param.grad, 5e-13, rtol=1e-6)
    with pytest.raises(TypeError, match='Dtype of data and grad mismatch'):
        param.grad = numpy.zeros(2)
    with pytest.raises(ValueError, match='Shape of data and grad mismatch'):
        param.grad = numpy.zeros(3, numpy.float32)


def test_true_gradients_are_added_in_float32():
    array = numpy.full(3, 3.0, numpy.float16)
    gradients = [ScaledArray(array, scale) for scale in [2.0**20, 2.0**-3] * 2500]
    total = true_gradients.true_sum(gradients)
    assert total.dtype == numpy.float32
    numpy.testing.assert_allclose(total, 2500 * (3 * 2.0**-20 + 24), rtol=5000 * 2.0**-24)


def layer_after_a_pass():
    """Returns a layer whose gradients have arrived at a scale of 2^10."""
    numpy.random.seed(0)
    with chainer.using_config('dtype', numpy.float16):
        layer = L.Linear(4, 3)
    chainerlp.convert(layer, policies.Fixed(1))
    layer.cleargrads()
    chainerlp.backward(F.sum(layer(numpy.ones((2, 4), 'e'))), 2.0**10)
    return layer


def test_a_float16_gradient_is_held_at_its_scale_until_it_is_read():
    W = layer_after_a_pass().W
    assert true_gradients.is_held_scaled(W)
    held = true_gradients.gradient_of(W)
    assert held.array.dtype == numpy.float16 and held.scale == 2.0**10
    numpy.testing.assert_array_equal(chainerlp.unscaled_grad(W), numpy.full((3, 4), 2))
    assert true_gradients.is_held_scaled(W)  # the wrapper's own look leaves it so
    assert W.grad.dtype == numpy.float32
    numpy.testing.assert_array_equal(W.grad, numpy.full((3, 4), 2))
    assert not true_gradients.is_held_scaled(W)
    W.grad *= 2
    numpy.testing.assert_array_equal(W.grad, numpy.full((3, 4), 4))


@pytest.mark.parametrize(
    'look',
    [
        lambda W: W.grad_var.array,
        lambda W: copy.copy(W).grad,
        lambda W: copy.deepcopy(W).grad,
        lambda W: pickle.loads(pickle.dumps(W)).grad,
        lambda W: W.addgrad(chainer.Parameter(numpy.zeros((3, 4), 'e'))) or W.grad,
    ],
    ids=['grad_var', 'copy', 'deepcopy', 'pickle', 'addgrad'],
)
def test_whoever_reads_a_gradient_that_is_held_gets_the_true_one(look):
    found = look(layer_after_a_pass().W)
    assert found.dtype == numpy.float32
    numpy.testing.assert_array_equal(found, numpy.full((3, 4), 2))


def test_what_is_held_can_be_cleared_replaced_and_added_to():
    layer = layer_after_a_pass()
    chainerlp.backward(F.sum(layer(numpy.ones((2, 4), 'e'))), 2.0**5)
    numpy.testing.assert_array_equal(layer.W.grad, numpy.full((3, 4), 4))
    layer = layer_after_a_pass()
    layer.W.grad = numpy.ones((3, 4), 'e')
    assert not true_gradients.is_held_scaled(layer.W) and layer.W.grad.dtype == numpy.float16
    layer.cleargrads()
    assert layer.b.grad is None and true_gradients.gradient_of(layer.b) is None


def test_a_part_of_a_larger_array_and_the_users_own_are_not_held():
    first, second = (chainer.Parameter(numpy.ones((2, 3), 'e')) for _ in range(2))
    chainerlp.backward(F.sum(F.concat([first, second], axis=0)))
    assert not true_gradients.is_held_scaled(first)
    loss = F.identity(second)
    loss.grad = own = numpy.ones((2, 3), 'e')
    second.cleargrad()
    chainerlp.backward(loss)
    own[...] = 7
    numpy.testing.assert_array_equal(second.grad, numpy.ones((2, 3)))


def test_gradients_are_formed_for_a_while():
    layer = layer_after_a_pass()
    without = chainer.Parameter(numpy.ones(2, 'e'))
    formed = true_gradients.form([*layer.params(), without])
    assert not any(map(true_gradients.is_held_scaled, layer.params()))
    numpy.testing.assert_array_equal(layer.W.grad, numpy.full((3, 4), 2))
    layer.b.cleargrad()
    true_gradients.hold_again(formed)
    assert true_gradients.is_held_scaled(layer.W)
    assert layer.b.grad is None and without.grad is None
    layer.W.grad += 1
    assert true_gradients.form(layer.params()) == []  # it is as true as it gets


def test_an_array_over_memory_of_another_kind_is_not_held():
    memory = (ctypes.c_uint16 * 3)()
    array = numpy.frombuffer(memory, numpy.float16)
    param = chainer.Parameter(numpy.zeros(3, 'e'))
    assert not true_gradients.can_be_held(param, ScaledArray(array))
    assert true_gradients.can_be_held(param, ScaledArray(array.copy()))


def test_a_true_gradient_beyond_float32_gives_no_warning():
    param = chainer.Parameter(numpy.zeros(1, 'e'))
    true_gradients.hold(param, ScaledArray(numpy.array([65504], 'e'), 2.0**-126))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert numpy.isinf(param.grad)
