from experiments.models.small_models import MLP

import chainer
import numpy
import pytest


def test_it_has_the_parameters_of_its_layers():
    model = MLP(in_size=64, units=128, classes=10, layers=12)
    assert model.count_params() == (64 + 1) * 128 + 10 * (128 + 1) * 128 + (128 + 1) * 10
    assert [name for name, _ in model.namedlinks(skipself=True)] == sorted(
        f'/fc{i}' for i in range(1, 13)
    )


def test_its_layers_are_applied_in_their_order_with_relu_in_between():
    model = MLP(in_size=6, units=5, classes=3, layers=11)
    x = numpy.random.RandomState(0).randn(4, 2, 3).astype(numpy.float32)
    h = x.reshape(4, 6)
    for index in range(1, 12):
        layer = model[f'fc{index}']
        h = (numpy.maximum(h, 0) if index > 1 else h) @ layer.W.array.T + layer.b.array
    numpy.testing.assert_allclose(model(x).array, h, rtol=1e-5)


def test_its_weights_keep_the_variance_of_what_relu_leaves():
    model = MLP(in_size=64, units=512, classes=10, layers=3)
    # He et al.: the variance is 2 / in_size. Of 512 x 512 normal numbers its estimate is off by
    # 0.3 % (one standard deviation).
    assert numpy.var(model.fc2.W.array) == pytest.approx(2 / 512, rel=0.02)
    assert not model.fc2.b.array.any()


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'mixed16'])
def test_it_computes_in_the_configured_dtype(dtype):
    dtype = chainer.mixed16 if dtype == 'mixed16' else numpy.dtype(dtype)
    with chainer.using_config('dtype', dtype):
        model = MLP(in_size=6, units=5, classes=3, layers=2)
        expected = chainer.get_dtype()
    y = model(numpy.ones((2, 6), expected))
    assert y.dtype == expected == model.fc1.W.dtype
