"""Functions that call cuSOLVER, cuFFT and cuBLAS by themselves, against the CPU."""

from tests.gpu.agreement import Case, assert_agrees

import chainer.functions as F
import numpy
import pytest

pytestmark = pytest.mark.gpu


def well_conditioned(*shape):
    x = numpy.random.RandomState(0).standard_normal(shape)
    return (x + 4 * numpy.eye(shape[-1])).astype('f')


def positive_definite(n):
    x = well_conditioned(n, n)
    return x.dot(x.T).astype('f')


def lower_triangle(x):
    return F.cholesky((x + F.transpose(x)) / 2)


def transformed(real, imaginary):
    return F.fft((real, imaginary))


# Condition numbers are under 20, and of `positive_definite` under 400: errors grow by so much.
CASES = {
    'inv': Case(F.inv, (well_conditioned(5, 5),), 20 * 25),
    'batch_inv': Case(F.batch_inv, (well_conditioned(3, 5, 5),), 20 * 25),
    'det': Case(F.det, (well_conditioned(5, 5),), 20 * 25),
    'batch_det': Case(F.batch_det, (well_conditioned(3, 5, 5),), 20 * 25),
    'cholesky': Case(lower_triangle, (positive_definite(5),), 400 * 25),
    'fft': Case(transformed, ((4, 16), (4, 16)), 16, 16),
    # Its projection is W = E D^(-1/2) E^T: the eigenvectors' signs drop out.
    'decorrelated batch normalization': Case(
        lambda x: F.decorrelated_batch_normalization(x, groups=2), ((40, 4, 3, 3),), 4000
    ),
}


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_values_and_gradients_are_those_of_the_cpu(device, case):
    assert_agrees(case, 'float32', device)
