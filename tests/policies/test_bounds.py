"""Scales stay within their bounds, and nothing overflows that they are chosen for."""

import dataclasses
from fractions import Fraction

from chainerlp import policies
from tests.policies.drawn import (
    INF,
    MODERATE,
    OF_THE_PRODUCT,
    U_MAX,
    each,
    every_product,
    floor_power_of_two,
    for_each,
    is_power_of_two,
    magnitudes_of,
    normal,
    pairs,
    product_of,
    some,
    terms_of,
    unbounded,
    unrounded,
)

import numpy
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

# A policy has an answer to whatever it is given, and no warning.
pytestmark = pytest.mark.filterwarnings('error')


@each
@for_each
@given(
    arrays=pairs(),
    max_scale=st.sampled_from([0.5, 1.0, 3.0, 16.0, 100.0, INF]),
    max_total_scale=st.sampled_from([0.25, 3.0, 1024.0, 65504.0, INF]),
    total_scale=st.sampled_from([2.0**-10, 0.75, 1.0, 4.0, 1000.0, 4096.0, 2.0**30]),
    backoff=st.sampled_from([1.0, 0.5, 2.0**-6]),
)
def test_a_scale_is_a_power_of_two_within_its_bounds(
    cls, arrays, max_scale, max_total_scale, total_scale, backoff
):
    policy = cls(max_scale=max_scale, max_total_scale=max_total_scale)
    alpha = policy.scale(*arrays, total_scale, backoff=backoff)
    assert type(alpha) is float
    assert is_power_of_two(alpha)
    assert alpha <= max_scale
    assert Fraction(alpha) * Fraction(total_scale) / Fraction(backoff) <= min(
        Fraction(max_total_scale) if max_total_scale < INF else 2**126, 2**126
    )
    # The bounds do no more than bind.
    free = unbounded(cls).scale(*arrays, total_scale, backoff=backoff)
    room = min(max_scale, max_total_scale * backoff / total_scale, free)
    assert alpha == floor_power_of_two(room)


@each
@for_each
@given(arrays=pairs())
def test_power_of_two_rounds_down_what_would_be_the_scale(cls, arrays):
    exact = cls(power_of_two=False).scale(*arrays)
    assert type(exact) is float
    assert cls().scale(*arrays) == floor_power_of_two(exact)


@each
def test_a_total_scale_beyond_its_bound_is_brought_back(cls):
    gy, W = normal(0, 8, 5, scale=1e-7), normal(1, 5, 3)
    assert cls(max_total_scale=1024.0).scale(gy, W, total_scale=4096.0) == 0.25
    assert cls(max_total_scale=1000.0).scale(gy, W, total_scale=4096.0) == 0.125


@each
@pytest.mark.parametrize('total_scale', [1.0, 2.0**100, 2.0**126, 2.0**127])
def test_without_bounds_a_total_scale_stays_a_normal_number_of_float32_as_its_reciprocal(
    cls, total_scale
):
    gy = numpy.full((2, 3), 2.0**-149, numpy.float32)
    alpha = unbounded(cls).scale(gy, gy.T, total_scale, product=gy)
    reciprocal = numpy.float32(1 / (total_scale * alpha))
    assert reciprocal >= numpy.finfo(numpy.float32).smallest_normal


def overflow_ratio(gy, W, alpha):
    """max|gy| max|W| K α / u_max, exactly."""
    largest = [Fraction(max(magnitudes_of(a), default=0)) for a in (gy, W)]
    return largest[0] * largest[1] * terms_of(W) * Fraction(alpha) / Fraction(U_MAX)


@pytest.mark.parametrize('cls', [policies.Adaptive, policies.AbsRange])
@some
@given(arrays=pairs(), threshold=st.sampled_from([1e-12, 1e-3]))
@example(arrays=(numpy.full((1, 1), U_MAX, 'e'), numpy.full((1, 1), U_MAX, 'e')), threshold=1e-3)
@example(arrays=(numpy.full((1, 23), 89, 'e'), numpy.full((23, 1), 2.0**-9, 'e')), threshold=1e-12)
def test_no_sum_of_products_of_the_maxima_overflows(cls, arrays, threshold):
    kwargs = dict(threshold=threshold) if cls is policies.Adaptive else {}
    alpha = unbounded(cls, **kwargs).scale(*arrays)
    assert overflow_ratio(*arrays, alpha) <= 1


def test_a_sum_of_maxima_that_just_fits_is_not_halved():
    # 89 · 2^-9 · 23 · α = 65504 = 23 · 89 · 2^5 for α = 2^14.
    gy, W = numpy.full((1, 23), 89, numpy.float16), numpy.full((23, 1), 2.0**-9, numpy.float16)
    alpha = unbounded(policies.Adaptive, threshold=1e-12).scale(gy, W)
    assert alpha == 2.0**14
    assert overflow_ratio(gy, W, alpha) == 1
    slightly_more = numpy.nextafter(gy, numpy.float16(INF))
    assert unbounded(policies.Adaptive, threshold=1e-12).scale(slightly_more, W) == 2.0**13


def test_with_24_bit_factors_the_sum_of_maxima_is_exact_to_float64():
    # Of float16 factors the product of the maxima and K is exact in float64. Of float32 factors it
    # can take more bits: this one is 2047 · 2^49 + 1, a power of two times 65504 and a bit.
    gy, W = numpy.zeros((1, 11513), numpy.float32), numpy.zeros((11513, 1), numpy.float32)
    gy[0, 0], W[0, 0] = 10184265, 9828097
    alpha = unbounded(policies.Adaptive, threshold=1e-16).scale(gy, W)
    assert overflow_ratio(gy, W, alpha) <= 1 + Fraction(2) ** -52


@some
@given(arrays=pairs())
def test_no_product_of_element_wise_range_overflows_its_sum(arrays):
    gy, W = arrays
    alpha = unbounded(policies.ElementWiseRange).scale(gy, W)
    largest = max(every_product(gy, W), default=0)
    assert Fraction(largest) * terms_of(W) * Fraction(alpha) <= Fraction(U_MAX)


@each
@for_each
@given(arrays=pairs(dtype=numpy.float32))
def test_no_gradient_overflows_once_it_is_scaled(cls, arrays):
    gy, W = arrays
    product = product_of(gy, W)
    alpha = unbounded(cls).scale(gy, W, product=product)
    largest = Fraction(max(magnitudes_of(product), default=0)) * Fraction(alpha)
    if cls in OF_THE_PRODUCT:
        assert largest <= Fraction(U_MAX) / 2**4
    else:
        # The float32 sum of K products is off by a factor of (1 + 2^-24)^K at most.
        assert largest <= Fraction(U_MAX) * (1 + Fraction(terms_of(W) + 1, 2**24))


@each
@for_each
@given(arrays=pairs(bits=MODERATE), exponent=st.integers(-15, 15))
def test_a_gradient_times_a_power_of_two_gets_the_scale_divided_by_it(cls, arrays, exponent):
    gy, W = (a.astype(numpy.float32) for a in arrays)
    gy *= 2.0**-20
    assume(product_of(gy, W).any())
    policy = unrounded(cls)
    before = policy.scale(gy, W)
    after = policy.scale(gy * numpy.float32(2.0**exponent), W)
    # α is nowhere less than 1 but for overflow, and AbsRange looks at no product under 1e-15.
    floors = cls not in (policies.Amax, policies.LogNormal)
    smallest = min(magnitudes_of(gy), default=0) * min(magnitudes_of(W), default=0)
    if floors:
        assume(before > 1 and after > 1)
    if cls is policies.AbsRange:
        assume(smallest * min(2.0**exponent, 1) > 1e-15)
    # Through roots, exp and log it is rounded.
    assert after == pytest.approx(before * 2.0**-exponent, rel=1e-11)


@each
@for_each
@given(
    arrays=pairs(bits=MODERATE, dtype=numpy.float32),
    total_scale=st.sampled_from([1.0, 4.0, 2.0**12]),
    exponent=st.integers(0, 12),
    gy_exponent=st.integers(-20, 0),
)
def test_backoff_shows_the_policy_the_gradient_that_there_would_be_without(
    cls, arrays, total_scale, exponent, gy_exponent
):
    gy, W = arrays
    gy = gy * numpy.float32(2.0**gy_exponent)
    backoff = 2.0**-exponent
    backed_off = cls().scale(gy * numpy.float32(backoff), W, total_scale * backoff, backoff=backoff)
    exact = cls is not policies.LogNormal  # through exp and log, it can fall to the next power
    without = cls().scale(gy, W, total_scale)
    assert backed_off == without if exact else without / 2 <= backed_off <= without * 2


@each
@pytest.mark.parametrize('backoff', [0.5, 2.0**-10])
@pytest.mark.parametrize('threshold', [1e-12, 0.5])
def test_backoff_is_taken_off_what_overflow_allows_too(cls, threshold, backoff):
    gy = numpy.exp(normal(0, 8, 5, scale=4, dtype=numpy.float32) + 4)  # a few large among small
    W = normal(1, 5, 3, scale=1e2, dtype=numpy.float32)
    names = [field.name for field in dataclasses.fields(cls)]
    policy = unrounded(cls, **(dict(threshold=threshold) if 'threshold' in names else {}))
    without = policy.scale(gy, W)
    backed_off = policy.scale(gy * numpy.float32(backoff), W, backoff, backoff=backoff)
    assert backed_off == pytest.approx(without, rel=1e-11)
    if cls not in (policies.LogNormal, policies.Measured):
        assert without < 1  # it was the overflow that decided
