"""One step of a network in mixed precision on a GPU, against the CPU in float64."""

import chainerlp
from tests.gpu.agreement import CPU, UNIT

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest

pytestmark = pytest.mark.gpu


class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(3, 8, 3, pad=1)
            self.norm = L.BatchNormalization(8)
            self.fc = L.Linear(8 * 6 * 6, 10)

    def forward(self, x, t):
        h = F.max_pooling_2d(F.relu(self.norm(self.conv(x))), 2)
        return F.softmax_cross_entropy(self.fc(h), t)


def made_in(dtype):
    with chainer.using_config('dtype', dtype):
        return Net()


def persistent(model):
    return {'mean': model.norm.avg_mean, 'var': model.norm.avg_var}


@pytest.fixture
def models(device):
    """Returns the model in mixed precision on the device, and the same in float64 on the CPU."""
    numpy.random.seed(0)
    model, reference = made_in(chainer.mixed16), made_in(numpy.float64)
    for name, param in model.namedparams():
        dict(reference.namedparams())[name].array[...] = param.array
    model.cleargrads()
    reference.cleargrads()
    model.to_device(device)
    return model, reference


@pytest.fixture
def batch():
    random = numpy.random.RandomState(1)
    return random.standard_normal((32, 3, 12, 12)).astype('e'), random.randint(0, 10, 32).astype(
        'i'
    )


def distance(actual, expected):
    """Returns the length of the difference, in lengths of what is expected."""
    return numpy.linalg.norm(CPU.send(actual) - expected) / numpy.linalg.norm(expected)


@pytest.mark.parametrize('scaled', [False, True], ids=['Chainer', 'chainerlp'])
def test_loss_gradients_and_statistics_are_those_of_the_cpu(device, models, batch, scaled):
    model, reference = models
    x, t = batch
    loss, exact = model(device.send(x), device.send(t)), reference(x.astype('d'), t)
    exact.backward()
    if scaled:
        chainerlp.convert(model, chainerlp.policies.Adaptive())
        loss = model(device.send(x), device.send(t))
        chainerlp.backward(loss)
    else:
        loss.backward()
    assert loss.dtype == 'float16'
    # About ten roundings on the way to the loss, and as many back to the first layer, each of
    # u = 2^-11 of the number. Where a ReLU or a maximum is nearly a tie, they decide; the share of
    # elements where they do is as small. In length that is less than 2^-6.
    assert abs(float(loss.array) - exact.array) <= 10 * UNIT['float16'] * exact.array
    expected = dict(reference.namedparams())
    for name, param in model.namedparams():
        assert param.dtype == ('float32' if name.startswith('/norm') else 'float16')
        assert param.grad.dtype == ('float32' if scaled else param.dtype)
        grad = chainerlp.unscaled_grad(param) if scaled else param.grad
        scale = numpy.linalg.norm(expected[name].grad)
        if name == '/conv/b':
            # The normalization takes every constant away: the exact gradient is 0.
            assert scale < 1e-12
            weights = numpy.linalg.norm(expected['/conv/W'].grad)
            assert numpy.linalg.norm(CPU.send(grad)) < 2.0**-6 * weights
        else:
            assert distance(grad, expected[name].grad) < 2.0**-6, name


def test_statistics_are_float32s_of_the_batch(device, models, batch):
    model, reference = models
    x, t = batch
    model(device.send(x), device.send(t))
    reference(x.astype('d'), t)
    expected = persistent(reference)
    for name, value in persistent(model).items():
        assert value.dtype == 'float32'
        # Of a rounded convolution: three roundings, and float32 sums.
        magnitude = max(abs(expected['mean']).max(), expected['var'].max())
        error = abs(CPU.send(value) - expected[name])
        assert error.max() <= 4 * UNIT['float16'] * magnitude, name


def test_the_same_step_gives_the_same_numbers(device, models, batch):
    model, _ = models
    x, t = (device.send(array) for array in batch)
    grads = []
    for _ in range(2):
        model.cleargrads()
        model(x, t).backward()
        grads.append([CPU.send(param.grad) for param in model.params()])
    for first, second in zip(*grads):
        numpy.testing.assert_array_equal(first, second)
