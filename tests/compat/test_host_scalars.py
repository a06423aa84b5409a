"""NumPy scalars do for Python numbers, whatever the NumPy."""

import chainer
import chainer.functions as F  # noqa: N812 -- Chainer's own name for it
import numpy
import pytest
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
