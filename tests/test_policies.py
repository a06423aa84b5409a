"""The policies: their formulas derived another way, and what holds for any arrays."""

import copy
import dataclasses
import itertools
import math
import pickle
import statistics
from fractions import Fraction

import chainerlp
from chainerlp import formats, geometry, policies

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

# A policy has an answer to whatever it is given, and no warning.
pytestmark = pytest.mark.filterwarnings('error')

INF, NAN = math.inf, math.nan
U_MIN, U_MAX = 2.0**-24, 65504.0

PAPERS = [policies.Adaptive, policies.AbsRange, policies.ElementWiseRange, policies.LogNormal]
OF_THE_PRODUCT = [policies.Amax, policies.Measured]
OF_THE_MAXIMA = [policies.Adaptive, policies.AbsRange, policies.ElementWiseRange]
BOUNDED = PAPERS + OF_THE_PRODUCT
EVERY = [cls() for cls in BOUNDED] + [policies.Fixed(128)]

each = pytest.mark.parametrize('cls', BOUNDED, ids=lambda cls: cls.__name__)
some = settings(deadline=None, max_examples=60)
for_each = settings(deadline=None, max_examples=25)


def unbounded(cls, **kwargs):
    return cls(max_scale=INF, max_total_scale=INF, **kwargs)


def unrounded(cls, **kwargs):
    return unbounded(cls, power_of_two=False, **kwargs)


# What the properties are tried on: halves, drawn as bits.


def halves(smallest, largest):
    """The halves between two magnitudes, of both signs."""
    first, last = (int(numpy.float16(limit).view(numpy.uint16)) for limit in (smallest, largest))
    return st.integers(first, last) | st.integers(first | 0x8000, last | 0x8000)


ANY = st.integers(0, 0xFFFF)
FINITE = halves(0, U_MAX)
# Magnitudes whose squares and products are normal numbers of float32 even times the powers of two
# below, so that these can be moved about without a rounding.
MODERATE = st.just(0) | halves(2.0**-12, 2.0**4)


@st.composite
def pairs(draw, bits=FINITE, dtype=numpy.float16, min_side=1):
    """Gy and W of a linear layer or of a convolution."""
    side = st.integers(min_side, 4)
    batch, n_out, n_in = draw(side), draw(side), draw(side)
    gy_shape, W_shape = (batch, n_out), (n_out, n_in)
    if draw(st.booleans()):
        gy_shape += (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        W_shape += (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    gy = draw(hnp.arrays(numpy.uint16, gy_shape, elements=bits)).view(numpy.float16)
    W = draw(hnp.arrays(numpy.uint16, W_shape, elements=bits)).view(numpy.float16)
    with numpy.errstate(invalid='ignore'):  # a signalling NaN
        return gy.astype(dtype), W.astype(dtype)


def normal(seed, *shape, scale=1.0, dtype=numpy.float16):
    rng = numpy.random.RandomState(seed)
    return (rng.standard_normal(shape) * scale).astype(dtype)


def terms_of(W):
    return W.shape[0] * math.prod(W.shape[2:])


def double(array):
    return array.astype(numpy.float64)


def magnitudes_of(array):
    """The nonzero magnitudes, as Python floats."""
    return [abs(x) for x in double(array).ravel().tolist() if x != 0]


def product_of(gy, W):
    return geometry.plain_data_gradient(gy.astype(numpy.float32), W.astype(numpy.float32))


def every_product(gy, W):
    """All the products gy_ik W_kj that are summed into gx, whichever sums they go to."""
    channels = (magnitudes_of(gy[:, k]) for k in range(W.shape[0]))
    return [g * w for k, gs in enumerate(channels) for g in gs for w in magnitudes_of(W[k])]


def bisect(increasing, target, low, high):
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < target else (low, middle)
    return (low + high) / 2


def quantile_of_magnitude(rate):
    """The x with P(|N(0, 1)| < x) = rate."""
    return bisect(lambda x: math.erf(x / math.sqrt(2)), rate, 0, 50)


def quantile(rate):
    """The x with P(N(0, 1) < x) = rate."""
    return bisect(lambda x: math.erfc(-x / math.sqrt(2)) / 2, rate, -50, 50)


def powers_of_two(low=-160, high=161):
    return (2.0**exponent for exponent in range(low, high))


def floor_power_of_two(value):
    _, exponent = math.frexp(value)  # 2^(exponent - 1) <= value < 2^exponent
    return 2.0 ** (exponent - 1)


def is_power_of_two(value):
    return value > 0 and floor_power_of_two(value) == value


# Adaptive.


def adaptive_by_hand(gy, W, threshold=1e-3, terms=None, u_min=U_MIN, u_max=U_MAX):
    terms = terms_of(W) if terms is None else terms
    gy, W = double(gy), double(W)
    sigma = math.sqrt((gy**2).mean() * (W**2).mean() * terms / 2)
    if sigma == 0:
        return 1.0
    lowest = u_min / (quantile_of_magnitude(threshold) * sigma)
    highest = u_max / terms / (abs(gy).max() * abs(W).max())
    return min(max(lowest, 1), highest)


@some
@given(pairs(), st.sampled_from([1e-6, 1e-3, 0.01, 0.3, 0.999]))
@example((numpy.full((2, 3), U_MIN, 'e'), numpy.full((3, 2), U_MIN, 'e')), 1e-3)
@example((numpy.full((2, 3), U_MAX, 'e'), numpy.full((3, 2), U_MAX, 'e')), 1e-3)
def test_adaptive_is_its_formula(arrays, threshold):
    gy, W = arrays
    alpha = unrounded(policies.Adaptive, threshold=threshold).scale(gy, W)
    assert alpha == pytest.approx(adaptive_by_hand(gy, W, threshold), rel=1e-5)


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32])
@pytest.mark.parametrize('gy_scale', [1e-7, 1e-5, 1e-3, 1, 1e3])
@pytest.mark.parametrize(
    'gy_shape, W_shape',
    [((256, 500), (500, 300)), ((8, 64, 14, 14), (64, 32, 3, 3))],
    ids=['linear', 'convolution'],
)
def test_adaptive_is_its_formula_for_the_arrays_of_real_layers(gy_shape, W_shape, gy_scale, dtype):
    gy, W = normal(0, *gy_shape, scale=gy_scale, dtype=dtype), normal(1, *W_shape, scale=0.05)
    expected = adaptive_by_hand(gy, W)
    assert unrounded(policies.Adaptive).scale(gy, W) == pytest.approx(expected, rel=1e-5)
    rounded = unbounded(policies.Adaptive).scale(gy, W)
    assert rounded == floor_power_of_two(expected)


def test_adaptive_of_a_million_equal_gradients():
    # What an average pooling passes down. A single float32 sum of the squares is off by 1e-3.
    gy, W = numpy.full((1 << 14, 64), 3e-6, numpy.float16), numpy.full((64, 8), 0.1, numpy.float16)
    g, w = float(gy[0, 0]), float(W[0, 0])
    expected = U_MIN / (quantile_of_magnitude(1e-3) * g * w * math.sqrt(64 / 2))
    assert unrounded(policies.Adaptive).scale(gy, W) == pytest.approx(expected, rel=1e-5)


def test_adaptive_on_numbers_worked_out_on_paper():
    gy, W = numpy.full((1, 1), 2.0**-20, numpy.float16), numpy.ones((1, 1), numpy.float16)
    # σ = 2^-20 / √2. Near zero P(|N| < x) = x √(2 / π), which for T = 1e-3 makes x = 1.253314e-3.
    # α = 2^-24 / (1.253314e-3 · 2^-20.5) = 70.5237
    assert unrounded(policies.Adaptive).scale(gy, W) == pytest.approx(70.5237, rel=1e-5)
    assert policies.Adaptive().scale(gy, W) == 16
    assert policies.Adaptive(max_scale=128.0).scale(gy, W) == 64


def test_adaptive_is_within_a_percent_of_the_papers_u_min():
    gy, W = normal(0, 64, 100, scale=1e-4), normal(1, 100, 50, scale=0.05)
    papers = adaptive_by_hand(gy, W, u_min=6.0e-8)
    assert unrounded(policies.Adaptive).scale(gy, W) == pytest.approx(papers, rel=0.01)


@pytest.mark.parametrize('name, u_min', [('bfloat16', 2.0**-133), ('float32', 2.0**-149)])
def test_adaptive_in_another_format(name, u_min):
    gy = normal(0, 8, 5, scale=1e-30, dtype=numpy.float32)
    W = normal(1, 5, 3, scale=1e-10, dtype=numpy.float32)
    u_max = formats.get(name).largest
    expected = adaptive_by_hand(gy, W, u_min=u_min, u_max=u_max)
    alpha = unrounded(policies.Adaptive, format=name).scale(gy, W)
    assert alpha == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('threshold', [5e-324, 1e-17, 1 - 2.0**-53])
def test_adaptive_at_the_ends_of_the_thresholds(threshold):
    gy, W = normal(0, 8, 5, scale=1e-3), normal(1, 5, 3)
    alpha = unbounded(policies.Adaptive, threshold=threshold).scale(gy, W)
    highest = U_MAX / 5 / (max(magnitudes_of(gy)) * max(magnitudes_of(W)))
    assert alpha == (1 if threshold > 0.5 else floor_power_of_two(highest))


# AbsRange.


def abs_range_by_hand(gy, W, terms=None):
    terms = terms_of(W) if terms is None else terms
    all_pairs = [g * w for g in magnitudes_of(gy) for w in magnitudes_of(W)]
    if not all_pairs:
        return 1.0
    lowest = U_MIN / terms / max(min(all_pairs), 1e-15)
    return min(max(lowest, 1), U_MAX / terms / max(all_pairs))


@some
@given(pairs())
@example((numpy.full((1, 1), U_MIN, 'e'), numpy.full((1, 1), U_MIN, 'e')))
@example((numpy.array([[U_MIN, U_MAX]], 'e'), numpy.full((2, 1), U_MAX, 'e')))
def test_abs_range_is_its_formula_over_all_pairs(arrays):
    alpha = unrounded(policies.AbsRange).scale(*arrays)
    assert alpha == pytest.approx(abs_range_by_hand(*arrays), rel=1e-12)


def test_abs_range_takes_no_product_for_smaller_than_1e_15():
    gy, W = numpy.full((1, 1), 1e-12, numpy.float32), numpy.full((1, 1), 1e-12, numpy.float32)
    assert unrounded(policies.AbsRange).scale(gy, W) == pytest.approx(U_MIN / 1e-15, rel=1e-12)


# ElementWiseRange.


@some
@given(pairs())
@example((numpy.array([[U_MIN, U_MAX]], 'e'), numpy.array([[U_MAX], [U_MIN]], 'e')))
def test_element_wise_range_is_its_formula_over_every_product(arrays):
    gy, W = arrays
    terms = every_product(gy, W)
    expected = 1.0
    if terms:
        lowest = max(max(U_MIN / p, 1) for p in terms)
        expected = min(lowest, min(U_MAX / p for p in terms) / terms_of(W))
    assert unrounded(policies.ElementWiseRange).scale(gy, W) == pytest.approx(expected, rel=1e-12)


def test_element_wise_range_saves_every_product():
    gy, W = normal(0, 20, 6, scale=1e-5), normal(1, 6, 5, scale=0.1)
    alpha = unrounded(policies.ElementWiseRange).scale(gy, W)
    assert min(every_product(gy, W)) * alpha == pytest.approx(U_MIN, rel=1e-12)


# LogNormal.


@some
@given(
    hnp.arrays(numpy.float32, st.integers(1, 30), elements=st.floats(2.0**-60, 2.0**40, width=32)),
    st.sampled_from([1e-6, 1e-3, 0.2, 0.9]),
)
def test_lognormal_is_its_formula(gradient, threshold):
    logarithms = [math.log(x) for x in magnitudes_of(gradient)]
    mean, deviation = statistics.fmean(logarithms), statistics.pstdev(logarithms)
    expected = math.exp(math.log(U_MIN) - mean - deviation * quantile(threshold))
    expected = min(expected, U_MAX / max(magnitudes_of(gradient)))
    alpha = unrounded(policies.LogNormal, threshold=threshold).scale(gradient, None)
    # Exponents up to 100 in float64, with some 10 operations each: 1000 * 2^-53 and to spare.
    assert alpha == pytest.approx(expected, rel=1e-11)


def test_lognormal_leaves_out_zeros_and_signs():
    gradient = numpy.exp(normal(0, 1000, scale=3, dtype=numpy.float64) - 12).astype(numpy.float32)
    policy = unrounded(policies.LogNormal)
    with_zeros = numpy.concatenate([-gradient, numpy.zeros(500, numpy.float32)])
    assert policy.scale(with_zeros, None) == pytest.approx(policy.scale(gradient, None), rel=1e-12)


def test_lognormal_loses_the_rate_that_was_asked_for_of_lognormal_gradients():
    rate, count = 0.01, 200000
    gradient = numpy.exp(normal(0, count, scale=2, dtype=numpy.float64) - 16).astype(numpy.float32)
    alpha = unrounded(policies.LogNormal, threshold=rate).scale(gradient, None)
    lost = numpy.count_nonzero(gradient * alpha < U_MIN) / count
    assert abs(lost - rate) < 5 * math.sqrt(rate * (1 - rate) / count)  # five standard deviations


def test_lognormal_looks_at_the_product_that_is_handed_in():
    gy, W = normal(0, 8, 5), normal(1, 5, 3)
    product = normal(2, 8, 3, scale=1e-7, dtype=numpy.float32)
    policy = unbounded(policies.LogNormal)
    assert policy.scale(gy, W, product=product) == policy.scale(product, None)
    assert policy.scale(gy, W) == policy.scale(gy, None)


# Amax and Measured.


def amax_by_search(product, margin):
    """The largest power of two that leaves the largest magnitude under the limit, exactly."""
    largest, limit = Fraction(max(magnitudes_of(product))), Fraction(U_MAX) / 2**margin
    return max(power for power in powers_of_two() if largest * Fraction(power) <= limit)


def measured_by_search(product, threshold, margin):
    """The smallest power of two, from 1, at which rounding loses no more than the threshold."""
    nonzero = product[product != 0]
    for power in powers_of_two(low=0):
        with numpy.errstate(over='ignore'):
            rounded = (double(nonzero) * power).astype(numpy.float16)
        if numpy.count_nonzero(rounded == 0) <= threshold * nonzero.size:
            return min(power, amax_by_search(product, margin))


@some
@given(pairs(), st.sampled_from([0, 4, 12]))
@example((numpy.full((1, 1), U_MAX, 'e'), numpy.ones((1, 1), 'e')), 0)
@example((numpy.full((1, 1), U_MIN, 'e'), numpy.full((1, 1), U_MIN, 'e')), 4)
def test_amax_is_found_by_search_too(arrays, margin):
    product = product_of(*arrays)
    assume(product.any())
    alpha = unbounded(policies.Amax, margin=margin).scale(*arrays)
    assert alpha == amax_by_search(product, margin)


@some
@given(pairs(), st.sampled_from([1e-3, 0.1, 0.5]), st.sampled_from([0, 4]))
@example((numpy.full((1, 1), 2.0**-20, 'e'), numpy.full((1, 1), 2.0**-5, 'e')), 0.1, 4)
@example((numpy.array([[1], [U_MIN]], 'e'), numpy.full((1, 3), 2.0**-24, 'e')), 0.5, 4)
@example((numpy.array([[U_MAX], [U_MIN]], 'e'), numpy.full((1, 3), 2.0**-3, 'e')), 1e-3, 0)
def test_measured_is_found_by_search_too(arrays, threshold, margin):
    product = product_of(*arrays)
    assume(product.any())
    alpha = unbounded(policies.Measured, threshold=threshold, margin=margin).scale(*arrays)
    assert alpha == measured_by_search(product, threshold, margin)


@pytest.mark.parametrize('threshold', [1e-3, 0.05, 0.3])
@pytest.mark.parametrize('spread', [1, 3, 6])
def test_measured_keeps_its_word_on_heavy_tails(spread, threshold):
    rng = numpy.random.RandomState(0)
    signs = rng.choice([-1.0, 1.0], (256, 100))
    product = (signs * numpy.exp(rng.standard_normal((256, 100)) * spread - 25)).astype('f')
    policy = unbounded(policies.Measured, threshold=threshold)
    alpha = policy.scale(product, None, product=product)
    assert alpha == measured_by_search(product, threshold, 4)
    amax = unbounded(policies.Amax).scale(product, None, product=product)
    lost = numpy.count_nonzero((product * numpy.float32(alpha)).astype(numpy.float16) == 0)
    assert lost <= threshold * product.size or alpha == amax


@pytest.mark.parametrize('cls', OF_THE_PRODUCT)
def test_the_product_that_is_handed_in_is_looked_at_instead_of_formed(cls):
    gy, W = normal(0, 2, 5, 3, 3), normal(1, 5, 3, 2, 2)
    product = normal(2, 2, 3, 7, 9, scale=1e-6, dtype=numpy.float32)  # of another stride, say
    policy = unbounded(cls)
    assert policy.scale(gy, W, product=product) == policy.scale(product, None, product=product)
    assert policy.scale(gy, W) == policy.scale(gy, W, product=product_of(gy, W))
    assert policy.scale(gy, W) != policy.scale(gy, W, product=product)


@pytest.mark.parametrize('margin', [0, 0.5, 2000.0])
def test_amax_with_any_margin(margin):
    product = numpy.full((1, 1), 3.0, numpy.float32)
    alpha = unrounded(policies.Amax, margin=margin).scale(product, None, product=product)
    # A margin that leaves nothing has no answer.
    assert alpha == (1 if margin == 2000 else pytest.approx(U_MAX / 2**margin / 3, rel=1e-15))


# What holds for all.


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
    exact = cls is not policies.LogNormal  # through exp and log, it is rounded
    expected = before * 2.0**-exponent
    assert after == (expected if exact else pytest.approx(expected, rel=1e-11))


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


@each
@for_each
@given(arrays=pairs(bits=ANY, min_side=0))
def test_any_arrays_have_a_scale_and_it_does_not_depend_on_their_dtype(cls, arrays):
    gy, W = arrays
    for policy in (cls(), unbounded(cls)):
        alpha = policy.scale(gy, W)
        assert type(alpha) is float and is_power_of_two(alpha)
        for gy_dtype, W_dtype in itertools.product([numpy.float16, numpy.float32], repeat=2):
            with numpy.errstate(invalid='ignore'):  # a signalling NaN
                converted = gy.astype(gy_dtype), W.astype(W_dtype)
            assert policy.scale(*converted) == alpha


@each
@pytest.mark.parametrize('special', [0.0, -0.0, INF, -INF, NAN])
@pytest.mark.parametrize('shape', [(4, 3), (4, 3, 2, 2)], ids=['linear', 'convolution'])
def test_where_a_formula_has_no_answer_the_scale_is_one(cls, special, shape):
    gy, W = normal(0, *shape, scale=1e-6), normal(1, 3, 5, *shape[2:])
    special_gy = numpy.full_like(gy, special)
    assert unbounded(cls).scale(special_gy, W) == 1
    assert cls(max_scale=0.5).scale(special_gy, W) == 0.5
    assert cls(max_total_scale=8.0).scale(special_gy, W, total_scale=32.0) == 0.25
    if special != 0:
        one_of_many = gy.copy()
        one_of_many[2, 1] = special
        assert unbounded(cls).scale(one_of_many, W) == 1
    if cls is not policies.LogNormal:  # it does not look at W
        assert unbounded(cls).scale(gy, numpy.full_like(W, special)) == 1


@each
@pytest.mark.parametrize(
    'gy_shape, W_shape',
    [
        ((0, 3), (3, 4)),
        ((2, 0), (0, 4)),
        ((2, 3), (3, 0)),
        ((0, 0), (0, 0)),
        ((0, 3, 4, 4), (3, 2, 1, 1)),
        ((2, 0, 4, 4), (0, 2, 1, 1)),
    ],
)
def test_the_scale_of_empty_arrays_is_one(cls, gy_shape, W_shape):
    gy, W = numpy.ones(gy_shape, numpy.float16), numpy.ones(W_shape, numpy.float16)
    assert unbounded(cls).scale(gy, W) == 1
    assert cls(max_scale=0.5).scale(gy, W) == 0.5
    terms = terms_of(W)
    assert unbounded(cls).scale(gy, W, terms=terms, product=product_of(gy, W)) == 1


@pytest.mark.parametrize('cls', OF_THE_PRODUCT + [policies.LogNormal])
def test_the_scale_of_an_empty_product_is_one(cls):
    for shape in [(0,), (0, 3), (2, 0)]:
        gradient = numpy.ones(shape, numpy.float32)
        assert unbounded(cls).scale(gradient, None, product=gradient) == 1


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32])
@pytest.mark.parametrize(
    'cls, expected',
    [
        (policies.Adaptive, 256.0),  # u_min / (1.2533e-3 · 3 · 2^-24.5) = 376.1
        (policies.AbsRange, 1.0),
        (policies.ElementWiseRange, 1.0),
        (policies.LogNormal, 0.25),  # u_min / (3 · 2^-24) = 0.33
        (policies.Amax, 2.0**34),  # 4094 / (3 · 2^-24) = 2^34.41
        (policies.Measured, 1.0),
    ],
)
def test_the_scale_of_a_single_subnormal(cls, expected, dtype):
    gy, W = numpy.full((1, 1), 3 * 2.0**-24, dtype), numpy.ones((1, 1), dtype)
    assert unbounded(cls).scale(gy, W) == expected


@pytest.mark.parametrize('cls', OF_THE_MAXIMA)
@pytest.mark.parametrize('shape', [(4, 6), (4, 6, 2, 2)], ids=['linear', 'convolution'])
def test_the_number_of_terms_can_be_given_for_groups(cls, shape):
    gy, W = normal(0, *shape, scale=1e-6), normal(1, 6, 2, *shape[2:], scale=1e-2)
    K = 6 * math.prod(shape[2:])
    for policy in (unrounded(cls), unrounded(cls, format='bfloat16')):
        assert policy.scale(gy, W) == policy.scale(gy, W, terms=K)
    by_hand = {policies.Adaptive: adaptive_by_hand, policies.AbsRange: abs_range_by_hand}
    if cls in by_hand:
        expected = by_hand[cls](gy, W, terms=K // 3)
        assert unrounded(cls).scale(gy, W, terms=K // 3) == pytest.approx(expected, rel=1e-5)
    huge = numpy.full(shape, 1e4, numpy.float16), numpy.full(W.shape, 1e3, numpy.float16)
    few, many = (unrounded(cls).scale(*huge, terms=terms) for terms in (K // 3, K))
    assert few == pytest.approx(3 * many, rel=1e-12)


@each
@pytest.mark.parametrize(
    'layout',
    [numpy.asfortranarray, lambda a: numpy.repeat(a, 2, axis=0)[::2], lambda a: a[::-1][::-1]],
    ids=['Fortran', 'strided', 'reversed twice'],
)
@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32])
def test_arrays_may_be_laid_out_in_any_way_and_stay_as_they_are(cls, layout, dtype):
    gy = normal(0, 4, 6, 3, 3, scale=1e-6).astype(dtype)
    W = normal(1, 6, 2, 2, 2).astype(dtype)
    product = product_of(gy, W)
    expected = cls().scale(gy, W), cls().scale(gy, W, product=product)
    gy_, W_, product_ = layout(gy), layout(W), layout(product)
    for array in (gy_, W_, product_):
        array.flags.writeable = False
    assert (cls().scale(gy_, W_), cls().scale(gy_, W_, product=product_)) == expected


@each
@pytest.mark.parametrize('number', [int, numpy.float32, numpy.float64, numpy.asarray])
def test_a_total_scale_may_be_any_number(cls, number):
    gy, W = normal(0, 4, 6, scale=1e-6), normal(1, 6, 2)
    policy = cls(max_total_scale=1024.0)
    alpha = policy.scale(gy, W, number(512))
    assert type(alpha) is float
    assert alpha == policy.scale(gy, W, 512.0) <= 2


# Fixed.


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32])
@pytest.mark.parametrize('scale', [1, 128, 0.5, 100.0, numpy.float32(2)])
def test_fixed_is_fixed(scale, dtype):
    policy = policies.Fixed(scale)
    for gy in (numpy.zeros((2, 3)), numpy.full((2, 3), NAN), numpy.ones((0, 3)), normal(0, 2, 3)):
        alpha = policy.scale(gy.astype(dtype), None, 1e9, terms=7, product=None, backoff=0.5)
        assert type(alpha) is float and alpha == scale


# Policies as values.


def test_arguments_by_position():
    assert policies.Adaptive(1e-4, 128.0, 4096.0, False, 100, 'bfloat16') == policies.Adaptive(
        threshold=1e-4,
        max_scale=128.0,
        max_total_scale=4096.0,
        power_of_two=False,
        interval=100,
        format='bfloat16',
    )
    shared = ['max_scale', 'max_total_scale', 'power_of_two', 'interval', 'format']
    names = {cls: [field.name for field in dataclasses.fields(cls)] for cls in BOUNDED}
    assert names == {
        policies.Adaptive: ['threshold'] + shared,
        policies.AbsRange: shared,
        policies.ElementWiseRange: shared,
        policies.LogNormal: ['threshold'] + shared,
        policies.Amax: ['margin'] + shared,
        policies.Measured: ['threshold', 'margin'] + shared,
    }


def test_defaults():
    assert policies.Adaptive() == policies.Adaptive(1e-3, 16.0, 1024.0, True, 1, 'float16')
    for cls in (policies.AbsRange, policies.ElementWiseRange):
        assert cls() == cls(16.0, 1024.0, True, 1, 'float16')
    assert policies.LogNormal() == policies.LogNormal(1e-3, 16.0, 1024.0, True, 1, 'float16')
    assert policies.Measured().threshold == 1e-3
    for cls in OF_THE_PRODUCT:
        assert (cls().max_scale, cls().max_total_scale) == (INF, INF)


@pytest.mark.parametrize('policy', EVERY, ids=repr)
def test_a_policy_is_a_frozen_value(policy):
    for twin in (
        eval(repr(policy), {**vars(policies), 'inf': INF}),
        copy.deepcopy(policy),
        pickle.loads(pickle.dumps(policy)),
    ):
        assert twin == policy and hash(twin) == hash(policy)
        assert repr(twin) == repr(policy)
    assert len(set(EVERY)) == len(EVERY)
    for field in dataclasses.fields(policy):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(policy, field.name, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.anything = 1


def test_policies_that_differ_in_one_argument_are_not_equal():
    assert policies.Adaptive() != policies.Adaptive(interval=2)
    assert policies.Adaptive() != policies.LogNormal()
    assert policies.Amax() != policies.Measured()
    assert policies.Fixed(1) != policies.Fixed(2)
    assert policies.Fixed(1) == policies.Fixed(1.0)
    assert dataclasses.replace(policies.Adaptive(), interval=2) == policies.Adaptive(interval=2)


def test_only_the_policies_of_the_product_scale_weights_on_their_own():
    assert [policy.scales_weights for policy in EVERY] == [False] * 4 + [True] * 2 + [False]


@pytest.mark.parametrize('policy', EVERY, ids=repr)
def test_every_policy_has_an_interval(policy):
    assert policy.interval == 1


WRONG = {
    'threshold': [0, 0.0, 1, 1.0, -0.1, 2, NAN, INF, '0.1', None, True, 1j, [0.1]],
    'margin': [-1, -1e-9, INF, NAN, '4', None, True],
    'max_scale': [0, 0.0, -1, -INF, NAN, '16', None, True],
    'max_total_scale': [0, -1.0, NAN, '1024', None, False],
    'power_of_two': [0, 1, 'yes', None, 2.0],
    'interval': [0, -1, 1.0, 1.5, '1', None, True, INF],
    'format': ['fp16', 'FLOAT16', '', None, 16, numpy.float16, ['float16'], 'a\nb'],
}


@each
def test_a_wrong_argument_is_an_error_of_one_line_that_names_it(cls):
    for field in dataclasses.fields(cls):
        for value in WRONG[field.name]:
            with pytest.raises(ValueError) as caught:
                cls(**{field.name: value})
            message = str(caught.value)
            assert message.startswith(f'{cls.__name__}: {field.name} must be ')
            assert message.endswith(f', not {value!r}')
            assert '\n' not in message


@pytest.mark.parametrize('scale', [0, -1, INF, NAN, '128', None, True, [1], 'a\nb'])
def test_a_wrong_constant_is_an_error_of_one_line_that_names_it(scale):
    with pytest.raises(ValueError) as caught:
        policies.Fixed(scale)
    message = str(caught.value)
    assert message.startswith('Fixed: scale must be ')
    assert message.endswith(f', not {scale!r}')
    assert '\n' not in message


@each
def test_numbers_of_numpy_are_as_good_as_pythons(cls):
    policy = cls(
        max_scale=numpy.float32(8), max_total_scale=numpy.int64(64), interval=numpy.int32(3)
    )
    gy, W = normal(0, 4, 6, scale=1e-7), normal(1, 6, 2)
    alpha = policy.scale(gy, W, 16.0)
    assert type(alpha) is float
    assert alpha == cls(max_scale=8.0, max_total_scale=64.0).scale(gy, W, 16.0)


class Halving(policies.Policy):
    """What a user writes: one method."""

    def scale(self, gy, W, total_scale=1.0, **context):
        return 0.5


def test_a_policy_of_ones_own_is_one_method():
    policy = policies.check(Halving())
    assert (policy.interval, policy.scales_weights) == (1, False)
    assert policy.within_bounds(8.0, 1.0) == 8.0
    link = chainerlp.convert(L.Linear(3, 2), policy)
    link.W.array, link.b.array = link.W.array.astype('e'), link.b.array.astype('e')
    link.cleargrads()
    y = link(chainer.Variable(numpy.ones((2, 3), 'e')))
    chainerlp.backward(F.sum(y))
    assert y.creator_node.scale == 0.5


@pytest.mark.parametrize('part', ['interval', 'scales_weights', 'needs_product', 'within_bounds'])
def test_what_lacks_a_part_of_the_protocol_is_refused_with_its_name(part):
    parts = {'interval', 'scales_weights', 'needs_product', 'within_bounds', 'scale'} - {part}
    incomplete = type('Mine', (), {name: lambda *args: 1.0 for name in parts})()
    with pytest.raises(TypeError, match=f'^policy Mine has no {part}: derive it from .*Policy$'):
        chainerlp.convert(L.Linear(3, 2), incomplete)
    with pytest.raises(TypeError, match=f'^policy Mine has no {part}'):
        chainerlp.AdaptiveLossScaling(chainer.optimizers.SGD(), incomplete)


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32, numpy.float64])
def test_measured_takes_a_product_of_any_float_dtype(dtype):
    product = numpy.array([2.0**-20, 2.0**-10, 1.0] * 100, dtype)
    gy = W = numpy.ones((1, 1), numpy.float16)
    expected = policies.Measured().scale(gy, W, product=product.astype('f'))
    assert policies.Measured().scale(gy, W, product=product) == expected == 1.0
    tiny = (product * dtype(2.0**-4)).astype(dtype)
    found = policies.Measured(0.1).scale(gy, W, product=(tiny * dtype(2.0**-3)).astype(dtype))
    assert found == policies.Measured(0.1).scale(gy, W, product=(tiny * dtype(2.0**-3)).astype('f'))
