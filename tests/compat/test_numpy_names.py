"""Functions of Chainer that use names which NumPy has dropped or changed give the right values."""

import chainer
import chainer.distributions as D  # noqa: N812
import chainer.functions as F  # noqa: N812 -- Chainer's own names for them
import numpy
import pytest


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64'])
def test_the_gradient_of_overlapping_windows_counts_each_use(dtype):
    x = chainer.Variable(numpy.arange(4, dtype=dtype))
    y = F.as_strided(x, (3, 2), (1, 1), 0)
    y.grad = numpy.ones_like(y.array)
    y.backward()
    assert x.grad.dtype == dtype
    assert x.grad.tolist() == [1, 2, 2, 1]


def test_the_gradient_of_integers_is_refused():
    y = F.as_strided(chainer.Variable(numpy.arange(4)), (3, 2), (1, 1), 0)
    y.grad = numpy.ones_like(y.array)
    with pytest.raises(TypeError, match='Only float'):
        y.backward()


@pytest.mark.parametrize(
    'mode, align_corners, expected',
    [
        ('bilinear', True, [0, 1, 2, 3]),
        ('bilinear', False, [0, 0.75, 2.25, 3]),
        ('nearest', False, [0, 0, 3, 3]),
    ],
)
def test_images_are_resized(mode, align_corners, expected):
    x = numpy.array([0, 3], 'f').reshape(1, 1, 1, 2)
    y = F.resize_images(x, (1, 4), mode=mode, align_corners=align_corners)
    numpy.testing.assert_allclose(y.array.ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize('shape', [(3,), (2, 3), (2, 5, 3)])
def test_the_log_probability_of_a_category_is_that_of_its_place(shape):
    probability = numpy.random.RandomState(0).dirichlet(numpy.ones(shape[-1]), shape[:-1])
    x = numpy.random.RandomState(1).randint(shape[-1], size=shape[:-1])
    expected = numpy.log([p[i] for p, i in zip(probability.reshape(-1, shape[-1]), x.ravel())])
    for value in (x, chainer.Variable(x)):
        actual = D.Categorical(p=probability).log_prob(value)
        assert actual.shape == shape[:-1]
        numpy.testing.assert_allclose(actual.array.ravel(), expected)
