"""Gradients of gradients on a GPU, and an LSTM's: kernels that CuPy fuses."""

from tests.gpu.agreement import Case, assert_agrees

import chainer
import chainer.functions as F
import pytest

pytestmark = pytest.mark.gpu

IMAGES = (2, 3, 5, 5)


def gradients_of(function):
    """Returns a function that gives the gradients of another, of the sum of its outputs."""

    def gradients(*inputs):
        y = function(*inputs)
        y = y if isinstance(y, tuple) else (y,)
        return tuple(chainer.grad(y, inputs, [v * v for v in y], enable_double_backprop=True))

    return gradients


FUNCTIONS = {
    # Cells and gates, of up to about 4; sums of products of up to four factors each.
    'lstm': (F.lstm, ((4, 5), (4, 20)), 40, 0),
    'slstm': (F.slstm, ((4, 5), (4, 5), (4, 20), (4, 20)), 40, 0),
    'linear': (F.linear, ((4, 9), (5, 9)), 12, 9 * 9 * 4),
    'convolution': (
        lambda x, W: F.convolution_2d(x, W, pad=1), (IMAGES, (4, 3, 3, 3)), 40, 200 * 27),
    'batch normalization': (
        lambda x, g, b: F.batch_normalization(x, g, b), (IMAGES, (3,), (3,)), 80, 500),
    'max pooling': (lambda x: F.max_pooling_2d(x, 2), (IMAGES,), 4, 0),
    'relu': (F.relu, (IMAGES,), 4, 0),
    'tanh': (F.tanh, (IMAGES,), 16, 0),
    'softmax': (F.softmax, ((4, 6),), 40, 6),
}  # fmt: skip


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
@pytest.mark.parametrize('function, inputs, roundings, terms', FUNCTIONS.values(), ids=FUNCTIONS)
def test_gradients_of_gradients_are_those_of_the_cpu(
    device, function, inputs, roundings, terms, dtype
):
    assert_agrees(Case(gradients_of(function), inputs, roundings, terms), dtype, device)


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_an_lstm_is_that_of_the_cpu(device, dtype):
    assert_agrees(Case(F.lstm, ((4, 5), (4, 20)), 16), dtype, device)
    assert_agrees(Case(F.lstm, ((4, 5), (3, 20)), 16), dtype, device)  # a batch that got smaller
