"""The formulas of the policies, derived another way."""

import math
import statistics
from fractions import Fraction

from chainerlp import formats, geometry, policies
from chainerlp.statistics import squares_by_position
from tests.policies.drawn import (
    NAN,
    OF_THE_MAXIMA,
    OF_THE_PRODUCT,
    U_MAX,
    U_MIN,
    double,
    every_product,
    floor_power_of_two,
    magnitudes_of,
    normal,
    pairs,
    powers_of_two,
    product_of,
    quantile,
    quantile_of_magnitude,
    some,
    terms_of,
    unbounded,
    unrounded,
)

import numpy
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

# A policy has an answer to whatever it is given, and no warning.
pytestmark = pytest.mark.filterwarnings('error')


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


@pytest.mark.parametrize('shapes', [((8, 500), (500, 30)), ((8, 64, 5, 5), (64, 32, 3, 3))])
def test_adaptive_by_the_variance_of_a_product_is_the_root_of_half_the_terms_larger(shapes):
    gy, W = normal(0, *shapes[0], scale=1e-6), normal(1, *shapes[1], scale=0.05)
    of_sums = unrounded(policies.Adaptive).scale(gy, W)
    of_products = unrounded(policies.Adaptive, variance='product').scale(gy, W)
    assert of_sums > 1
    assert of_products == pytest.approx(of_sums * math.sqrt(terms_of(W) / 2), rel=1e-12)
    sigma = math.sqrt((double(gy) ** 2).mean() * (double(W) ** 2).mean())
    assert of_products == pytest.approx(U_MIN / quantile_of_magnitude(1e-3) / sigma, rel=1e-5)


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


# PerSample.


def per_sample_by_search(gy, W, threshold, terms):
    """The smallest power of two at which the samples' own Gaussians lose no more on average."""
    moment = statistics.fmean(w * w for w in double(W).ravel().tolist())
    deviations = [
        math.sqrt(statistics.fmean(g * g for g in double(sample).ravel().tolist()) * moment * terms)
        for sample in gy
    ]
    for power in powers_of_two(low=0):
        lost = [math.erf(U_MIN / 2 / power / (math.sqrt(2) * d)) for d in deviations if d > 0]
        if sum(lost) <= threshold * len(gy):
            return power


@some
@given(pairs(), st.sampled_from([1e-9, 1e-3, 0.1, 0.5]), st.integers(-40, 0))
@example((numpy.float16([[0, 0], [U_MIN, 0], [U_MAX, 0]]), numpy.ones((2, 1), 'e')), 0.3, 0)
def test_per_sample_is_found_by_search_too(arrays, threshold, exponent):
    gy, W = (array.astype(numpy.float32) for array in arrays)
    gy *= numpy.float32(2.0**exponent)
    assume(gy.any() and W.any())
    expected = per_sample_by_search(gy, W, threshold, terms_of(W))
    # Second moments are float32 sums.
    about = [per_sample_by_search(gy, W, threshold * (1 + e), terms_of(W)) for e in (-1e-5, 1e-5)]
    largest = max(magnitudes_of(gy)) * max(magnitudes_of(W))
    highest = floor_power_of_two(U_MAX / terms_of(W) / largest)
    alpha = unbounded(policies.PerSample, threshold=threshold).scale(gy, W)
    assert alpha in {min(scale, highest) for scale in (expected, *about)}


@pytest.mark.parametrize('spread', [0, 4, 8])
def test_per_sample_keeps_its_word_where_samples_differ(spread):
    """On Gaussian samples it does what it says; the paper's formula only where they are alike."""
    rng = numpy.random.RandomState(0)
    W = rng.standard_normal((100, 600)).astype('f') * 0.1
    sizes = 2.0 ** (-30 - spread * rng.rand(512, 1))
    gy = (rng.standard_normal((512, 100)) * sizes).astype('f')

    def lost(policy):
        product = product_of(gy, W) * numpy.float32(policy.scale(gy, W))
        return (product.astype(numpy.float16) == 0).mean()

    # Halves of what is allowed are lost at least: a power of two less would lose twice as much.
    assert 0.4e-3 < lost(unbounded(policies.PerSample)) <= 1.1e-3
    if spread == 8:
        assert lost(unbounded(policies.Adaptive)) > 3e-3


def test_without_a_window_the_positions_of_a_sample_count_together():
    gy = normal(0, 6, 4, 5, 3, scale=1e-7, dtype=numpy.float32)
    W = normal(1, 4, 2, 1, 1, dtype=numpy.float32)
    policy = unbounded(policies.PerSample)
    rows = gy.reshape(6, -1)
    assert policy.scale(gy, W) == policy.scale(rows, W, terms=4)


GEOMETRIES = [
    geometry.Convolution(pad=(1, 1)),
    geometry.Convolution((2, 1), (1, 0), (1, 2)),
    geometry.Convolution(groups=2),
    geometry.Deconvolution(geometry.Convolution((2, 2), (1, 1)), (7, 8)),
]


def layer_gradients(layer, seed=0):
    """Returns gy, few of whose positions have most of it, W with the outputs first, and a context.

    gx in float64 is among the latter, for the test.
    """
    rng = numpy.random.RandomState(seed)
    groups = getattr(layer, 'groups', 1)
    if isinstance(layer, geometry.Deconvolution):
        W, size = rng.standard_normal((24, 8, 3, 3)), layer.out_size
    else:
        W, size = rng.standard_normal((8, 24 // groups, 3, 3)), (6, 7)
    gy = rng.standard_normal((6, 8, *size)) * 2.0 ** rng.uniform(
        -30, -18, (6, groups, *size)
    ).repeat(8 // groups, axis=1)
    gy, W = gy.astype('f'), W.astype('f')
    if isinstance(layer, geometry.Deconvolution):
        x_size = layer.transpose.output(gy, W).shape[2:]
    else:
        x_size = layer.smallest_input(size, (3, 3))
    window = layer.window(gy.shape, W.shape, x_size)
    squares = double(layer.data_gradient(gy**2 * 2.0**40, numpy.ones_like(W), x_size)) / 2.0**40
    product = double(layer.data_gradient(gy, W, x_size))
    context = {'terms': layer.terms(W.shape), 'window': window}
    return gy, layer.weight_by_output(W), context, squares, product


@pytest.mark.parametrize('layer', GEOMETRIES, ids=repr)
@pytest.mark.parametrize('threshold', [1e-4, 1e-3, 0.05])
def test_per_sample_is_per_position_too(layer, threshold):
    gy, W, context, squares, product = layer_gradients(layer)
    policy = unbounded(policies.PerSample, threshold=threshold)
    deviations = numpy.sqrt(squares * (double(W) ** 2).mean())

    def lost(scale):
        return special.erf(U_MIN / 2 / scale / math.sqrt(2) / deviations).mean()

    alpha = policy.scale(gy, W, **context)
    # Deviations are counted in eighths of powers of two of their squares: off by 1/32 at most.
    assert lost(alpha) <= threshold * (1 + 1 / 32)
    assert alpha == 1 or lost(alpha / 2) > threshold / (1 + 1 / 32)
    for scale in (1.0, alpha):
        predicted = policy.predicted_underflow(gy, W, scale, **context)
        assert predicted == pytest.approx(lost(scale), rel=1 / 32)


@pytest.mark.parametrize('layer', GEOMETRIES, ids=repr)
def test_per_sample_keeps_its_word_where_positions_differ(layer):
    """The share that is lost lies between a half of T and T, as a scale is a power of two."""
    lost, lost_without = [], []
    for seed in range(20):
        gy, W, context, _, product = layer_gradients(layer, seed)
        for found, window in ((lost, context['window']), (lost_without, None)):
            policy = unbounded(policies.PerSample)
            alpha = policy.scale(gy, W, terms=context['terms'], window=window)
            found.append((abs(product) * alpha <= U_MIN / 2).mean())
    # Over 200 seeds it is 0.65 to 0.72 T, and three times T and more.
    assert 0.5e-3 < statistics.fmean(lost) < 1e-3
    assert statistics.fmean(lost_without) > 2e-3


def test_positions_may_be_further_apart_than_the_squares_of_float32():
    gy = numpy.ones((4, 4, 3, 3), numpy.float32)
    gy[::2] *= 2.0**-90
    W = numpy.ones((4, 2, 1, 1), numpy.float32)
    window = geometry.Convolution().window(gy.shape, W.shape, (3, 3))
    context = dict(terms=4, window=window)
    for policy in (policies.PerSample(), policies.PerSample(0.4)):
        rows = gy.transpose(0, 2, 3, 1).reshape(-1, 4)
        assert policy.scale(gy, W, **context) == policy.scale(rows, W, terms=4) > 1
    assert policy.predicted_underflow(gy, W, **context) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize('value', [numpy.inf, -numpy.inf, NAN])
@pytest.mark.parametrize('by_position', [False, True])
def test_what_is_not_finite_has_the_scale_one_and_loses_nothing(value, by_position):
    gy = numpy.full((2, 4, 1, 2), 2.0**-24, numpy.float32)
    gy[0, 0, 0, 0] = value
    W = numpy.full((4, 2, 1, 1), 1 / 16, numpy.float32)
    window = geometry.Convolution().window(gy.shape, W.shape, (1, 2))
    context = dict(terms=4, window=window if by_position else None)
    policy = policies.PerSample()
    assert policy.scale(gy, W, **context) == 1
    found = policy.predicted_underflow(gy, W, **context)
    gy[0, 0, 0, 0] = 2.0**-24
    share = 3 / 4 if by_position else 1 / 2
    assert found == pytest.approx(policy.predicted_underflow(gy, W, **context) * share)


def test_a_gradient_without_elements_has_the_scale_one():
    gy, W = numpy.ones((2, 4, 2, 3), numpy.float32), numpy.ones((4, 3, 1, 1), numpy.float32)
    window = geometry.Convolution(pad=(1, 1)).window(gy.shape, W.shape, (0, 1))
    context = dict(terms=4, window=window)
    assert policies.PerSample().scale(gy, W, **context) == 1
    assert policies.PerSample().predicted_underflow(gy, W, **context) == 0


@pytest.mark.parametrize('exponent', [-100, -45, 45, 100])
def test_squares_by_position_do_not_leave_the_range_of_float32(exponent):
    gy = normal(0, 2, 4, 3, 3, dtype=numpy.float32)
    window = geometry.Convolution(pad=(1, 1)).window(gy.shape, (4, 2, 3, 3), (3, 3))
    expected = squares_by_position(gy, window)
    moved = squares_by_position(gy * numpy.float32(2.0**exponent), window)
    numpy.testing.assert_allclose(moved, expected * 4.0**exponent, rtol=1e-6)  # float32 sums


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


# Fixed.


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32])
@pytest.mark.parametrize('scale', [1, 128, 0.5, 100.0, numpy.float32(2)])
def test_fixed_is_fixed(scale, dtype):
    policy = policies.Fixed(scale)
    for gy in (numpy.zeros((2, 3)), numpy.full((2, 3), NAN), numpy.ones((0, 3)), normal(0, 2, 3)):
        alpha = policy.scale(gy.astype(dtype), None, 1e9, terms=7, product=None, backoff=0.5)
        assert type(alpha) is float and alpha == scale


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
