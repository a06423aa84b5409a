"""The rate of underflow that the paper's policy, and ours, expect of a layer."""

import math

from chainerlp import policies

import numpy
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import special

UNBOUNDED = dict(max_scale=math.inf, max_total_scale=math.inf, power_of_two=False)
POLICIES = [
    policies.Adaptive(**UNBOUNDED),
    policies.Adaptive(**UNBOUNDED, variance='product'),
    policies.PerSample(),
]


def drawn(seed, exponent=-20.0, spread=3.0):
    """Gradients whose samples differ in size, and a weight."""
    random = numpy.random.RandomState(seed)
    sizes = 2.0 ** (exponent + spread * random.randn(32, 1))
    gy = (random.randn(32, 24) * sizes).astype(numpy.float32)
    return gy, random.randn(24, 40).astype(numpy.float32) / 5


@pytest.mark.parametrize('variance, terms', [('sum', 24 / 2), ('product', 1)])
@pytest.mark.parametrize('scale', [1.0, 32.0])
def test_the_papers_is_that_of_one_gaussian(variance, terms, scale):
    gy, W = (array.astype(numpy.float64) for array in drawn(0))
    deviation = math.sqrt((gy**2).mean() * (W**2).mean() * terms)
    expected = special.erf(2**-24 / scale / deviation / math.sqrt(2))
    found = policies.Adaptive(variance=variance).predicted_underflow(*drawn(0), scale)
    assert found == pytest.approx(expected, rel=1e-6)  # moments in float32


@pytest.mark.parametrize('scale', [1.0, 32.0])
def test_ours_is_the_mean_over_the_samples(scale):
    gy, W = (array.astype(numpy.float64) for array in drawn(0))
    deviations = numpy.sqrt((gy**2).mean(axis=1) * (W**2).mean() * 24)
    expected = special.erf(2**-25 / scale / deviations / math.sqrt(2)).mean()
    found = policies.PerSample().predicted_underflow(*drawn(0), scale)
    assert found == pytest.approx(expected, rel=1e-6)


@given(seed=st.integers(0, 1000), exponent=st.floats(-30, -10))
@pytest.mark.parametrize('policy', POLICIES[:2], ids=lambda policy: policy.variance)
def test_the_paper_chooses_where_it_expects_its_threshold(policy, seed, exponent):
    gy, W = drawn(seed, exponent)
    alpha = policy.scale(gy, W)
    assume(alpha > 1)
    highest = 65504 / 24 / (abs(gy).max() * abs(W).max())
    assume(alpha < highest * (1 - 1e-6))
    # α is a float64: as exact as the quantile, 1e-9 of it here, and the moments, which are the same
    assert policy.predicted_underflow(gy, W, alpha) == pytest.approx(policy.threshold, rel=1e-6)


@given(seed=st.integers(0, 1000), exponent=st.floats(-30, -10))
def test_ours_chooses_the_first_power_of_two_with_no_more_than_its_threshold(seed, exponent):
    gy, W = drawn(seed, exponent)
    policy = policies.PerSample()
    alpha = policy.scale(gy, W)
    assume(alpha <= 65504 / 24 / (abs(gy).max() * abs(W).max()) / 2)
    assert policy.predicted_underflow(gy, W, alpha) <= policy.threshold
    if alpha > 1:
        assert policy.predicted_underflow(gy, W, alpha / 2) > policy.threshold


def test_ours_is_right_where_samples_differ_and_the_papers_is_not():
    random = numpy.random.RandomState(1)
    gy = (random.randn(64, 64) * 2.0 ** (4 * random.randn(64, 1) - 24)).astype(numpy.float32)
    W = random.randn(64, 256).astype(numpy.float32)
    measured = (abs(gy.astype(numpy.float64) @ W) <= 2**-25).mean()
    # Five standard deviations: over 300 seeds the difference's is 0.002, and its mean 0.0000.
    assert policies.PerSample().predicted_underflow(gy, W) == pytest.approx(measured, abs=0.01)
    assert policies.Adaptive().predicted_underflow(gy, W) < measured / 5


@pytest.mark.parametrize('policy', POLICIES, ids=str)
def test_of_zeros_nothing_is_lost(policy):
    gy, W = drawn(0)
    assert policy.predicted_underflow(0 * gy, W) == 0
    assert policy.predicted_underflow(gy, 0 * W) == 0
