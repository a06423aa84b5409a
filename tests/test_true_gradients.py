"""The true gradients that variables hold."""

from chainerlp import true_gradients
from chainerlp.scaled_array import ScaledArray

import chainer
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
