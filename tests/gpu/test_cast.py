"""A scaled cast on a GPU chooses the scale, and rounds to the numbers, that it does on the CPU."""

import chainerlp
from chainerlp import functions, policies
from chainerlp.layer_scale import LayerScale

import chainer
import numpy
import pytest

pytestmark = pytest.mark.gpu
BOUNDS = dict(max_scale=65504.0, max_total_scale=65504.0)


@pytest.mark.parametrize(
    'policy',
    [
        policies.LogNormal(**BOUNDS),
        policies.LogNormal(**BOUNDS, interval=2),
        policies.Adaptive(**BOUNDS, variance='product'),
        policies.Amax(),
    ],
    ids=repr,
)
def test_it_agrees_with_the_cpu(policy):
    rng = numpy.random.RandomState(0)
    gradients = [
        (2.0**exponent * rng.lognormal(0, 1.5, (4, 11, 33)) * rng.choice([-1, 1], (4, 11, 33)))
        for exponent in (-28, -24)
    ]
    results = []
    for device in ('@numpy', '@cupy:0'):
        layer_scale = LayerScale(policy)
        for gradient in gradients:
            x = chainer.Variable(numpy.zeros(gradient.shape, numpy.float16))
            x.to_device(device)
            y = functions.scaled_cast(x, 'float32', layer_scale)
            y.grad = chainer.get_device(device).send(gradient.astype(numpy.float32))
            chainerlp.backward(y)
            scale = float(y.creator.scale)
            results.append((scale, chainer.get_device('@numpy').send(x.grad)))
    for (ours, on_cpu), (theirs, on_gpu) in zip(results[:2], results[2:]):
        # A power of two, unless the two sums of logarithms lie on either side of one.
        assert ours == theirs > 1
        numpy.testing.assert_array_equal(on_cpu, on_gpu)
