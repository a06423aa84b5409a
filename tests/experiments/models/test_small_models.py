from experiments.models.small_models import MLP, DeepCNN

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


def test_a_sigmoid_net_lets_its_gradients_decay():
    numpy.random.seed(0)
    model = MLP(in_size=32, units=32, classes=10, layers=6, activation='sigmoid')
    x = numpy.random.randn(16, 32).astype(numpy.float32)
    h = x
    for index in range(1, 7):
        layer = model[f'fc{index}']
        h = (1 / (1 + numpy.exp(-h)) if index > 1 else h) @ layer.W.array.T + layer.b.array
    y = model(x)
    numpy.testing.assert_allclose(y.array, h, rtol=1e-4)
    model.cleargrads()
    chainer.functions.softmax_cross_entropy(y, numpy.arange(16, dtype=numpy.int32) % 10).backward()
    sizes = [numpy.linalg.norm(model[f'fc{index}'].b.grad) for index in (2, 3, 4, 5)]
    # A sigmoid passes a quarter on at most, and weights of variance 1 / n add nothing to it.
    assert all(above > 2 * below for above, below in zip(sizes[1:], sizes))


@pytest.mark.parametrize('batch_normalization', [False, True])
def test_the_deep_cnn_halves_its_images_twice(batch_normalization):
    model = DeepCNN(3, 10, batch_normalization)
    sizes = {}

    class Sizes(chainer.LinkHook):
        def forward_postprocess(self, args):
            if isinstance(args.link, chainer.links.Convolution2D):
                sizes[args.link.name] = args.out.shape[1:]

    with Sizes():
        assert model(numpy.ones((2, 3, 28, 20), numpy.float32)).shape == (2, 10)
    assert list(sizes.values()) == [
        *((16, 28, 20), (16, 28, 20)),
        *((32, 14, 10), (32, 14, 10)),
        (64, 7, 5),
    ]
    normalized = [link for link in model.links() if 'BatchNormalization' in type(link).__name__]
    assert len(normalized) == (5 if batch_normalization else 0)
