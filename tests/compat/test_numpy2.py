"""Functions of Chainer give on NumPy 2 what they gave on NumPy 1."""

import chainer
import chainer.distributions as D
import chainer.functions as F
import numpy
import pytest
from chainer.dataset import concat_examples
from chainer.functions.math.clip import Clip


class Inputs:
    """Makes the same variables again and again, and keeps them for their gradients."""

    def __init__(self, dtype):
        self.dtype = dtype
        self.made = []

    def __call__(self, *shape):
        values = numpy.random.RandomState(len(self.made)).uniform(0.25, 0.75, shape)
        self.made.append(chainer.Variable(values.astype(self.dtype)))
        return self.made[-1]


def local_response_normalization(x, scalar):
    return F.local_response_normalization(
        x(3, 4, 5, 5), 5, k=scalar(2), alpha=scalar(1e-2), beta=scalar(0.75)
    )


def fixed_batch_normalization(x, scalar):
    return F.fixed_batch_normalization(x(3, 4), x(4), x(4), x(4), x(4), eps=scalar(1e-3))


def batch_renormalization(x, scalar):
    return F.batch_renormalization(
        x(3, 4),
        x(4),
        x(4),
        scalar(2),
        scalar(1),
        eps=scalar(1e-3),
        decay=scalar(0.9),
        running_mean=numpy.zeros(4, x.dtype),
        running_var=numpy.ones(4, x.dtype),
    )


CASES = {
    'clip': lambda x, scalar: F.clip(x(3, 4), scalar(0.3), scalar(0.5)),
    'huber_loss': lambda x, scalar: F.huber_loss(x(3, 4), x(3, 4), delta=scalar(0.1)),
    'layer_normalization': lambda x, scalar: F.layer_normalization(
        x(3, 4), x(4), x(4), eps=scalar(1e-3)
    ),
    'local_response_normalization': local_response_normalization,
    'fixed_batch_normalization': fixed_batch_normalization,
    'batch_renormalization': batch_renormalization,
}


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
@pytest.mark.parametrize(
    'kind',
    [numpy.float64, numpy.float32, numpy.longdouble, numpy.array],
    ids=['float64', 'float32', 'longdouble', '0-d array'],
)
@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_the_result_is_that_of_the_same_python_number(case, kind, dtype):
    results = []
    for scalar in (kind, lambda value: float(kind(value))):
        x = Inputs(dtype)
        y = case(x, scalar)
        assert y.dtype == dtype
        y.grad = numpy.ones_like(y.array)
        y.backward()
        results.append([y.array] + [variable.grad for variable in x.made])
    for actual, expected in zip(*results):
        assert actual.dtype == expected.dtype == dtype
        numpy.testing.assert_array_equal(actual, expected)


@pytest.mark.skipif(int(numpy.__version__.split('.')[0]) < 2, reason='NumPy 1 needs nothing')
def test_bounds_are_python_floats_for_cupy_too():
    # On the CPU numpy.clip's result is cast back, cupy.clip's is not.
    function = Clip(numpy.float64(0.25), x_max=numpy.float32(0.5))
    assert (type(function.x_min), type(function.x_max)) == (float, float)


def test_no_bound_is_none():
    x = Inputs('float16')
    assert F.clip(x(9), numpy.float64(0.5), None).array.min() == 0.5
    with pytest.raises(ValueError, match='must set either'):
        F.clip(x(9), None, None)


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


# NumPy 1.24 to 1.26, where this is not patched, warn of it.
wraps_around = pytest.mark.filterwarnings('ignore:NumPy will stop allowing')


@wraps_around
@pytest.mark.parametrize(
    'dtype, expected',
    [
        ('uint8', 255),
        ('uint16', 2**16 - 1),
        ('uint64', 2**64 - 1),
        ('int8', -1),
        ('int32', -1),
        ('float16', -1),
    ],
)
def test_minus_one_becomes_the_largest_unsigned_number(dtype, expected):
    arrays = [numpy.array([1, 2], dtype), numpy.array([3], dtype)]
    padded = F.pad_sequence(arrays, padding=-1).array
    assert padded.dtype == dtype
    assert padded.tolist() == [[1, 2], [3, expected]]
    assert concat_examples(arrays, padding=-1).tolist() == padded.tolist()


@wraps_around
def test_other_paddings_are_what_they_were():
    arrays = [numpy.array([1, 2], 'f'), numpy.array([3], 'f')]
    assert F.pad_sequence(arrays, padding=0.5).array.tolist() == [[1, 2], [3, 0.5]]
    assert F.pad_sequence(arrays, length=3).array.tolist() == [[1, 2, 0], [3, 0, 0]]
    assert concat_examples([(a, a.astype('B')) for a in arrays], padding=(0.5, -1))[1].tolist() == [
        [1, 2],
        [3, 255],
    ]
    with pytest.raises(ValueError):
        concat_examples(arrays)
