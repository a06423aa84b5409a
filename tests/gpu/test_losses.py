"""softmax_cross_entropy on a GPU: labels to ignore, many axes, any order of memory."""

from tests.gpu.agreement import CPU, Case, assert_agrees

import chainer.functions as F
import numpy
import pytest

pytestmark = pytest.mark.gpu

CLASSES = 5
WEIGHTS = numpy.array([0.5, 1, 2, 0.25, 1], 'd')
SHAPES = {'2-d': (30, CLASSES), '3-d': (4, CLASSES, 7), '4-d': (3, CLASSES, 4, 6)}
OPTIONS = {
    'mean': {},
    'not normalized': {'normalize': False},
    'each': {'reduce': 'no'},
    'each, weighted': {'reduce': 'no', 'class_weight': WEIGHTS},
    'weighted': {'class_weight': WEIGHTS},
    'without scores': {'cache_score': False},
}


def labels(shape, order):
    random = numpy.random.RandomState(3)
    t = random.randint(0, CLASSES, (shape[0], *shape[2:])).astype('i')
    t[random.rand(*t.shape) < 0.3] = -1
    return numpy.asarray(t, order=order)


def loss(options):
    def run(x, t):
        here = dict(options)
        if 'class_weight' in options:
            here['class_weight'] = x.xp.asarray(options['class_weight'].astype(x.dtype))
        return F.softmax_cross_entropy(x, t, **here)

    return run


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
@pytest.mark.parametrize('order', ['C', 'F'])
@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
def test_losses_and_gradients_are_those_of_the_cpu(device, options, shape, order, dtype):
    # The log softmax: difference, exponential, sum, logarithm, of up to 8 in magnitude. Weights,
    # the count, the quotient. An fp16 mean on the CPU is a sum of fp16 numbers, pairwise.
    case = Case(loss(options), (shape, labels(shape, order)), 20, 100)
    assert_agrees(case, dtype, device)


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_an_unweighted_mean_is_over_those_that_count(device, dtype):
    x = numpy.zeros((6, 4), dtype)
    t = numpy.array([0, 1, -1, -1, 3, -1], 'i')
    value = CPU.send(F.softmax_cross_entropy(device.send(x), device.send(t)).array)
    assert value == pytest.approx(numpy.log(4), rel=2.0**-9)
    nothing = F.softmax_cross_entropy(device.send(x), device.send(numpy.full(6, -1, 'i')))
    assert float(nothing.array) == 0


def test_the_mean_over_many_labels_is_not_taken_in_fp16(device):
    # 65536 · ln 2 = 45426 would fit, but in fp16 the sum would stick at 2048 · ln 2 / 2.
    x = device.send(numpy.zeros((4, 2, 128, 128), 'e'))
    t = device.send(numpy.zeros((4, 128, 128), 'i'))
    value = F.softmax_cross_entropy(x, t).array
    assert value.dtype == 'float16'
    assert float(value) == pytest.approx(numpy.log(2), rel=2.0**-9)


def test_whoever_is_sure_of_the_class_loses_nothing_and_others_all(device):
    x = numpy.array([[100, -100], [-100, 100]], 'e')
    t = numpy.array([0, 0], 'i')
    losses = F.softmax_cross_entropy(device.send(x), device.send(t), reduce='no').array
    assert CPU.send(losses).tolist() == [0, 200]
