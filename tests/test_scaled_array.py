"""Joined and aligned gradients, against sums in float64 and exact fractions."""

import math
from fractions import Fraction

from chainerlp import scaled_array
from chainerlp.scaled_array import ScaledArray

import numpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

pytestmark = pytest.mark.filterwarnings('error')

INF, NAN = math.inf, math.nan
U_MAX = {numpy.float16: 65504.0, numpy.float32: float(numpy.finfo('f').max)}

some = settings(deadline=None, max_examples=100)

FINITE_HALF_BITS = st.integers(0, 0x7BFF) | st.integers(0x8000, 0xFBFF)


def finite_halves(shape):
    bits = hnp.arrays(numpy.uint16, shape, elements=FINITE_HALF_BITS)
    return bits.map(lambda drawn: drawn.view(numpy.float16))


@st.composite
def gradients(draw, exponents=(-20, 40)):
    """Arrays of one shape, float16, and their scales: powers of two."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    count = draw(st.integers(2, 4))
    arrays = [draw(finite_halves(shape)) for _ in range(count)]
    scales = [2.0 ** draw(st.integers(*exponents)) for _ in range(count)]
    return arrays, scales


def scaled(arrays, scales):
    return [ScaledArray(array, scale) for array, scale in zip(arrays, scales)]


def join(arrays, scales):
    joined = scaled_array.join(scaled(arrays, scales))
    return joined.array, joined.scale


def align(arrays, scales):
    aligned = scaled_array.align(scaled(arrays, scales))
    (common,) = {gradient.scale for gradient in aligned}
    return [gradient.array for gradient in aligned], common


def rescale(array, scale, target):
    return ScaledArray(array, scale).to(target).array


def largest_of(array):
    return Fraction(float(numpy.abs(array).max())) if array.size else Fraction(0)


def sum_of_maxima(arrays, scales):
    """What the true gradients' sum is at most."""
    return sum(largest_of(a) / Fraction(s) for a, s in zip(arrays, scales))


def largest_sum(arrays, scales):
    """The true sum's largest magnitude, exactly."""
    elements = zip(*(a.ravel().tolist() for a in arrays))
    sums = [sum(Fraction(x) / Fraction(s) for x, s in zip(xs, scales)) for xs in elements]
    return max(map(abs, sums), default=Fraction(0))


def floor_power_of_two(value):
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    return Fraction(2) ** (exponent if Fraction(2) ** exponent <= value else exponent - 1)


def chosen_scale(total, arrays, scales, u_max):
    """The rule: the scale of the largest true gradient, or a larger one if the sum stays small."""
    highest = Fraction(max(scales))
    largest, scale = max((largest_of(a) / Fraction(s), s) for a, s in zip(arrays, scales))
    scale, limit = Fraction(scale), Fraction(u_max) / 16
    if total * scale > limit:
        return floor_power_of_two(limit / total)
    if total == 0:
        return highest
    return max(scale, min(highest, floor_power_of_two(1 / total)))


def assert_is_the_common_scale(common, arrays, scales, u_max=65504.0, total=None):
    """The sum is formed in float32: it may be off by 2^-24 of the magnitudes for each array."""
    assert type(common) is float
    total = largest_sum(arrays, scales) if total is None else total
    slack = Fraction(2) ** -20 * sum_of_maxima(arrays, scales)
    possible = {
        chosen_scale(max(t, 0), arrays, scales, u_max)
        for t in (total - slack, total, total + slack)
    }
    assert Fraction(common) in possible


def true_sum(arrays, scales):
    return sum(a.astype(numpy.float64) / s for a, s in zip(arrays, scales))


def assert_is_the_sum(joined, common, arrays, scales):
    """Within one rounding to float16 of a float32 sum."""
    actual, exact = joined.astype(numpy.float64) / common, true_sum(arrays, scales)
    magnitudes = true_sum([numpy.abs(a) for a in arrays], scales)
    # 2^-11 relative for the rounding, half the smallest subnormal where that is larger; each of the
    # additions in float32 is off by 2^-24 of the magnitudes.
    bound = 2.0**-11 * numpy.abs(exact) + 2.0**-25 / common + len(arrays) * 2.0**-24 * magnitudes
    assert (numpy.abs(actual - exact) <= bound * (1 + 2.0**-20)).all()


@some
@given(gradients())
@example(([numpy.array([65504], 'e')] * 2, [1.0, 1.0]))
@example(([numpy.array([65504], 'e'), numpy.array([2.0**-24], 'e')], [2.0**20, 1.0]))
@example(([numpy.array([32752], 'e')] * 2, [8.0, 8.0]))
def test_halves_are_joined_to_their_sum(drawn):
    arrays, scales = drawn
    joined, common = join(arrays, scales)
    assert joined.dtype == numpy.float16
    assert joined.shape == arrays[0].shape
    assert_is_the_common_scale(common, arrays, scales)
    assert_is_the_sum(joined, common, arrays, scales)
    assert numpy.isfinite(joined).all()


@pytest.mark.parametrize(
    'values, scales, expected',
    [
        ([1, 1], [4.0, 1024.0], 4.0),  # the larger gradient's: at 1024 the sum would be 257
        (
            [2.0**-14, 1],
            [4.0, 2.0**20],
            2.0**15,
        ),  # 2^-16 + 2^-20: as large a scale as leaves it under 1
        ([2.0**-14, 1], [4.0, 64.0], 64.0),  # the other's 1/64 is the larger gradient
        ([4000, 0], [1.0, 1024.0], 1.0),  # 65504 / 16 = 4094
        ([4095, 0], [1.0, 1024.0], 0.5),
        ([60000, 60000], [1.0, 1.0], 2.0**-5),
        ([65504] * 4, [8.0] * 4, 0.125),
        ([0, 0], [4.0, 1024.0], 1024.0),
        ([0, 3], [1024.0, 1.0], 1.0),
        ([1, -1], [2.0**-30, 2.0**-10], 2.0**-30),
    ],
)
def test_the_common_scale(values, scales, expected):
    arrays = [numpy.array([0, value], numpy.float16) for value in values]
    joined, common = join(arrays, scales)
    assert common == expected
    assert_is_the_common_scale(common, arrays, scales)
    assert_is_the_sum(joined, common, arrays, scales)


@some
@given(gradients())
def test_arrays_are_aligned_at_a_scale_at_which_they_can_be_joined(drawn):
    arrays, scales = drawn
    aligned, common = align(arrays, scales)
    if len(set(scales)) == 1:
        assert common == scales[0]
    else:
        assert_is_the_common_scale(common, arrays, scales, total=sum_of_maxima(arrays, scales))
    for after, before, scale in zip(aligned, arrays, scales):
        assert (after.dtype, after.shape) == (before.dtype, before.shape)
        assert_is_the_sum(after, common, [before], [scale])


def test_arrays_that_carry_the_same_scale_are_aligned_already():
    arrays = [numpy.full(3, 60000, numpy.float16), numpy.full((2, 5), 60000, numpy.float16)]
    aligned, common = align(arrays, [128.0, 128.0])
    assert common == 128
    assert all(after is before for after, before in zip(aligned, arrays))


def test_arrays_of_different_shapes_and_dtypes_are_aligned():
    half = numpy.array([60000, 1e-3], numpy.float16)
    single = numpy.full((2, 3), 1e-10, numpy.float32)
    (aligned_half, aligned_single), common = align([half, single], [2.0, 1024.0])
    assert common == 2.0**-3  # 30000 is the larger, and brought under 65504 / 16
    numpy.testing.assert_array_equal(aligned_half, half / numpy.float16(16))
    assert aligned_single.dtype == numpy.float32 and aligned_single.shape == (2, 3)
    numpy.testing.assert_array_equal(aligned_single, single * numpy.float32(2.0**-13))


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32, numpy.float64])
def test_one_array_is_its_own_join(dtype):
    array = numpy.array([1, NAN, 65504, 0], dtype)
    joined, common = join([array], [7.0])
    assert joined is array and common == 7
    (aligned,), common = align([array], [7.0])
    assert aligned is array and common == 7


@pytest.mark.parametrize('dtype', [numpy.float32, numpy.float64])
@pytest.mark.parametrize('scale', [1.0, 3.0, 2.0**-40])
def test_wide_arrays_that_carry_the_same_scale_are_added_as_chainer_adds_them(scale, dtype):
    rng = numpy.random.RandomState(0)
    a, b, c = (
        (rng.standard_normal((7, 5)) * 10.0 ** rng.randint(-8, 8, (7, 5))).astype(dtype)
        for _ in range(3)
    )
    joined, common = join([a, b, c], [scale] * 3)
    assert common == scale
    assert joined.dtype == dtype
    assert joined.tobytes() == (a + b + c).tobytes()  # bit for bit, from left to right


@pytest.mark.parametrize('dtype', [numpy.float32, numpy.float64])
def test_wide_arrays_that_carry_different_scales(dtype):
    rng = numpy.random.RandomState(0)
    arrays = [rng.standard_normal((7, 5)).astype(dtype) for _ in range(3)]
    scales = [1.0, 2.0**-3, 2.0**10]
    joined, common = join(arrays, scales)
    assert common == 2.0**-3  # of the array that is divided by least
    assert joined.dtype == dtype
    exact = sum(a.astype(numpy.longdouble) / s for a, s in zip(arrays, scales)) * common
    magnitudes = sum(abs(a).astype(numpy.longdouble) / s for a, s in zip(arrays, scales)) * common
    # Powers of two are exact; what is left are two additions.
    assert (abs(joined - exact) <= 2 * numpy.finfo(dtype).eps * magnitudes).all()


def test_large_singles_are_brought_to_a_scale_at_which_they_can_be_added():
    arrays = [numpy.array([3e38, -3e38], numpy.float32), numpy.array([3e38, 1], numpy.float32)]
    joined, common = join(arrays, [1.0, 2.0])
    assert_is_the_common_scale(common, arrays, [1.0, 2.0], U_MAX[numpy.float32])
    assert common == 2.0**-5
    numpy.testing.assert_allclose(joined, [4.5e38 / 32, -3e38 / 32], rtol=1e-6)


@pytest.mark.parametrize('value', [1e300, 1e-300])
def test_doubles_beyond_the_range_of_singles_can_be_joined(value):
    joined, common = join([numpy.full(2, value), numpy.full(2, value)], [1.0, 4.0])
    numpy.testing.assert_allclose(joined / common, 1.25 * value, rtol=1e-15)


@some
@given(gradients(exponents=(-3, 12)), st.sampled_from([3.0, 0.7, 100.0]))
def test_scales_need_not_be_powers_of_two(drawn, factor):
    arrays, scales = drawn
    scales[0] *= factor
    joined, common = join(arrays, scales)
    assert common <= max(scales)
    exact = true_sum(arrays, scales)
    magnitudes = true_sum([numpy.abs(a) for a in arrays], scales)
    # As above, and 2^-23 relative for a factor that float32 rounds.
    bound = 2.0**-11 * abs(exact) + 2.0**-25 / common + (len(arrays) + 2) * 2.0**-23 * magnitudes
    assert (abs(joined.astype(numpy.float64) / common - exact) <= bound * (1 + 2.0**-20)).all()
    assert numpy.isfinite(joined).all()


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32, numpy.float64])
@pytest.mark.parametrize('scales', [[1.0, 1.0], [1.0, 1024.0], [1024.0, 1.0]])
def test_inf_and_nan_arrive(scales, dtype):
    first = numpy.array([INF, -INF, NAN, INF, 1, INF], dtype)
    second = numpy.array([1, 1, 1, INF, NAN, -INF], dtype)
    joined, common = join([first, second], scales)
    numpy.testing.assert_array_equal(joined, numpy.array([INF, -INF, NAN, INF, NAN, NAN], dtype))
    (first_, second_), common = align([first, second], scales)
    for after, before in ((first_, first), (second_, second)):
        numpy.testing.assert_array_equal(numpy.isnan(after), numpy.isnan(before))
        numpy.testing.assert_array_equal(numpy.isinf(after), numpy.isinf(before))


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32, numpy.float64])
@pytest.mark.parametrize('scales', [[1.0, 1.0], [1.0, 1024.0], [1024.0, 1.0]])
def test_large_numbers_beside_an_inf_overflow_in_silence(scales, dtype):
    largest = numpy.finfo(dtype).max
    arrays = [numpy.array([INF, largest, 0], dtype), numpy.array([0, largest, 0], dtype)]
    for joined in (join(arrays, scales)[0], *align(arrays, scales)[0]):
        assert joined[0] in (INF, 0) and joined[1] > 0 and joined[2] == 0
    assert rescale(arrays[0], 1.0, 2.0)[1] == INF


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32, numpy.float64])
@pytest.mark.parametrize('scales', [[1.0, 1.0], [1.0, 1024.0], [1024.0, 1.0]])
@pytest.mark.parametrize('shape', [(), (1,), (0,), (2, 0, 3)])
def test_scalars_and_empty_arrays(shape, scales, dtype):
    arrays = [numpy.full(shape, 3, dtype), numpy.full(shape, 5, dtype)]
    joined, common = join(arrays, scales)
    assert isinstance(joined, numpy.ndarray)
    assert (joined.shape, joined.dtype) == (shape, dtype)
    expected = (3 / scales[0] + 5 / scales[1]) * common
    numpy.testing.assert_array_equal(joined, numpy.full(shape, expected, dtype))
    aligned, common = align(arrays, scales)
    for array in aligned:
        assert isinstance(array, numpy.ndarray)
        assert (array.shape, array.dtype) == (shape, dtype)


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32, numpy.float64])
@pytest.mark.parametrize('scales', [[4.0, 4.0, 4.0], [1.0, 1024.0, 2.0]])
def test_arguments_stay_as_they_are(scales, dtype):
    rng = numpy.random.RandomState(0)
    arrays = [rng.standard_normal((6, 4)).astype(dtype) for _ in range(3)]
    arrays[1] = numpy.asfortranarray(arrays[1])
    arrays[2] = arrays[2][::-1]
    before = [a.copy() for a in arrays]
    for array in arrays:
        array.flags.writeable = False
    given_arrays, given_scales = list(arrays), list(scales)
    joined, _ = join(arrays, scales)
    joined[...] = 0  # a new array, which may be written to
    align(arrays, scales)
    assert all(a is b for a, b in zip(arrays, given_arrays)) and scales == given_scales
    for array, copy in zip(arrays, before):
        numpy.testing.assert_array_equal(array, copy)


def test_arrays_laid_out_in_any_way_are_joined_alike():
    rng = numpy.random.RandomState(0)
    arrays = [rng.standard_normal((6, 4)).astype(numpy.float16) for _ in range(2)]
    expected, _ = join(arrays, [1.0, 64.0])
    joined, _ = join([numpy.asfortranarray(arrays[0]), arrays[1][::-1][::-1]], [1.0, 64.0])
    numpy.testing.assert_array_equal(joined, expected)


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32, numpy.float64])
def test_rescaling_by_a_power_of_two_is_exact_and_back(dtype):
    array = numpy.array([[1.5, -3], [0, 1000]], dtype)
    up = rescale(array, 2.0, 64.0)
    assert up.dtype == dtype
    numpy.testing.assert_array_equal(up, array * 32)
    numpy.testing.assert_array_equal(rescale(up, 64.0, 2.0), array)
    assert rescale(array, 2.0, 2.0) is array


def test_rescaled_halves_are_rounded_once_and_overflow_to_inf():
    array = numpy.array([65504, 1, 3 * 2.0**-24, -(2.0**-24)], numpy.float16)
    numpy.testing.assert_array_equal(
        rescale(array, 1.0, 2.0), numpy.array([INF, 2, 6 * 2.0**-24, -(2.0**-23)], 'e')
    )
    numpy.testing.assert_array_equal(  # ties go to even
        rescale(array, 2.0, 1.0), numpy.array([32752, 0.5, 2.0**-23, 0], 'e')
    )


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32, numpy.float64])
def test_a_scalar_is_rescaled_to_a_scalar_array(dtype):
    one = rescale(numpy.ones((), dtype), 1.0, 1024.0)
    assert isinstance(one, numpy.ndarray)
    assert (one.shape, one.dtype, float(one)) == ((), dtype, 1024.0)


def test_a_sum_that_cancels_needs_no_smaller_scale():
    arrays = [numpy.array([60000, 1], numpy.float16), numpy.array([-60000, 2], numpy.float16)]
    joined, common = join(arrays, [4.0, 4.0])
    assert common == 4
    numpy.testing.assert_array_equal(joined, [0, 3])


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32])
def test_scales_further_apart_than_float32_is_wide_are_brought_together(dtype):
    arrays = [numpy.array([60000], dtype), numpy.array([3], dtype)]
    joined, common = join(arrays, [2.0**-20, 2.0**120])
    assert math.isfinite(joined[0])
    numpy.testing.assert_allclose(float(joined[0]) / common, 60000 * 2.0**20, rtol=2.0**-11)


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32, numpy.float64])
@pytest.mark.parametrize('scale', [1.0, 2.0**-10, 2.0**100])
def test_the_true_gradient_is_a_new_array_in_float32_or_wider(scale, dtype):
    array = numpy.array([1.5, -3, 2.0**-24, 0], dtype)
    true = ScaledArray(array, scale).true()
    assert true.dtype == max(numpy.dtype(dtype), numpy.dtype('float32'))
    numpy.testing.assert_array_equal(true, array.astype(numpy.float64) / scale)
    assert true is not array and not numpy.shares_memory(true, array)


@pytest.mark.parametrize('value', [1e-12, 1.0, 1e9])
def test_what_is_rounded_to_fit_keeps_a_margin(value):
    wide = ScaledArray(numpy.array([value, -value / 2], numpy.float32), 1.0)
    fitting = scaled_array.round_to_fit(wide, numpy.float16)
    assert fitting.array.dtype == numpy.float16
    assert abs(fitting.array).max() <= 65504 / 16
    if value >= 1:
        numpy.testing.assert_allclose(fitting.true(), wide.array, rtol=2.0**-11)
