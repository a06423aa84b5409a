"""The statistics, each against its definition in plain Python floats."""

import fractions
import math
import statistics as by_definition

from chainerlp import formats, statistics
from chainerlp.rounding import to_float32
from tests import drawn_arrays
from tests.drawn_arrays import DTYPES, arrays, finite_arrays, values

import ml_dtypes
import numpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

pytestmark = pytest.mark.filterwarnings('error')

INF, NAN = math.inf, math.nan

quick = settings(deadline=None, max_examples=60)


def largest_of(array):
    magnitudes = [abs(x) for x in values(array)]
    return NAN if any(math.isnan(x) for x in magnitudes) else max(magnitudes, default=0.0)


def second_moment_of(array):
    return math.fsum(x * x for x in values(array)) / max(array.size, 1)


def nonzero_range_of(array):
    magnitudes = [abs(x) for x in values(array) if x != 0]
    return min(magnitudes, default=INF), max(magnitudes, default=0.0)


def log_moments_of(array):
    logarithms = [math.log(abs(x)) for x in values(array) if x != 0]
    if not logarithms:
        return NAN, NAN
    return by_definition.fmean(logarithms), by_definition.pstdev(logarithms)


def assert_same_float(actual, expected):
    assert isinstance(actual, numpy.float64)
    assert actual == expected or (math.isnan(actual) and math.isnan(expected))


@quick
@given(arrays())
def test_largest_magnitude(array):
    assert_same_float(statistics.largest_magnitude(array), largest_of(array))


@quick
@given(finite_arrays())
@example(numpy.full(3, 1e38, numpy.float32))  # squares beyond float32
@example(numpy.full(3, 1e-30, numpy.float32))  # squares below it
@example(numpy.full(3, 3e-22, numpy.float32))  # squares among its subnormals
@example(numpy.array([1e-45, 3e38], numpy.float32))
@example(numpy.full(3, 2.0**-24, numpy.float16))
def test_second_moment(array):
    moment = statistics.second_moment(array)
    assert isinstance(moment, numpy.float64)
    # A float32 sum of n squares: each square and each partial sum is off by 2^-24 at most.
    assert math.isclose(moment, second_moment_of(array), rel_tol=(array.size + 1) * 2.0**-24)


@pytest.mark.parametrize('size', [1, 100, (1 << 13) - 1, (1 << 13) + 1, 1 << 16, 1 << 21])
@pytest.mark.parametrize('value', [0.1, 0.7, 1e-20])
def test_second_moment_of_many_equal_elements(size, value):
    # One long float32 sum stops growing: of 2^21 elements it was off by 1e-3, of 2^24 by 5e-3.
    array = numpy.full(size, value, numpy.float32)
    expected = float(array[0]) ** 2
    assert math.isclose(statistics.second_moment(array), expected, rel_tol=1e-5)


@pytest.mark.parametrize('dtype', DTYPES)
def test_second_moment_of_inf_and_nan(dtype):
    assert statistics.second_moment(numpy.array([1, INF, 2], dtype)) == INF
    assert math.isnan(statistics.second_moment(numpy.array([1, NAN, INF], dtype)))


@quick
@given(arrays(allow_nan=False))
def test_nonzero_range(array):
    smallest, largest = statistics.nonzero_range(array)
    expected_smallest, expected_largest = nonzero_range_of(array)
    assert_same_float(smallest, expected_smallest)
    assert_same_float(largest, expected_largest)


def test_nonzero_range_with_a_nan():
    smallest, largest = statistics.nonzero_range(numpy.array([1, NAN, 0], numpy.float32))
    assert math.isnan(smallest) and math.isnan(largest)


@quick
@given(finite_arrays())
@example(numpy.zeros(3, numpy.float32))
@example(numpy.full(3, 2.0**-24, numpy.float16))
@example(numpy.array([1e-45, 3e38, 0], numpy.float32))
def test_log_moments(array):
    mean, deviation = statistics.log_moments(array)
    expected_mean, expected_deviation = log_moments_of(array)
    # Logarithms up to 104 in float64, at most 64 of them: 64 * 104 * 2^-52 = 1.5e-12.
    numpy.testing.assert_allclose(mean, expected_mean, rtol=0, atol=1e-11)
    numpy.testing.assert_allclose(deviation, expected_deviation, rtol=0, atol=1e-11)


@pytest.mark.parametrize('special', [INF, -INF, NAN])
def test_log_moments_with_inf_or_nan_are_not_finite(special):
    mean, deviation = statistics.log_moments(numpy.array([1, special, 2], numpy.float32))
    assert not math.isfinite(mean) and not math.isfinite(deviation)


@quick
@given(arrays(dtypes=[numpy.float16, numpy.float32, numpy.float64]))
def test_all_finite(array):
    assert bool(statistics.all_finite(array)) == all(math.isfinite(x) for x in values(array))


def test_all_finite_for_every_half():
    halves = numpy.arange(1 << 16, dtype=numpy.uint16).view(numpy.float16)
    is_finite = numpy.isfinite(halves)
    assert statistics.all_finite(halves[is_finite])
    array = halves[is_finite][:100].copy()
    for special in halves[~is_finite]:
        array[50] = special
        assert not statistics.all_finite(array)


STATISTICS = {
    'largest_magnitude': (statistics.largest_magnitude, largest_of, 0),
    'second_moment': (statistics.second_moment, second_moment_of, 91 * 2.0**-24),
    'nonzero_range': (statistics.nonzero_range, nonzero_range_of, 0),
    'log_moments': (statistics.log_moments, log_moments_of, 1e-12),
    'all_finite': (statistics.all_finite, lambda array: True, 0),
}
LAYOUTS = {
    **drawn_arrays.LAYOUTS,
    '0-d': lambda a: a[1:2, 1].reshape(()),
    'one element': lambda a: a[3:4, 2:3],
}


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('layout', sorted(LAYOUTS))
@pytest.mark.parametrize('name', sorted(STATISTICS))
def test_any_layout_in_memory(name, layout, dtype):
    rng = numpy.random.RandomState(0)
    array = (rng.standard_normal((10, 9)) * 2.0 ** rng.randint(-10, 10, (10, 9))).astype(dtype)
    array[2] = 0
    array.flags.writeable = False  # what it reads, it leaves alone
    array = LAYOUTS[layout](array)
    function, definition, tolerance = STATISTICS[name]
    numpy.testing.assert_allclose(function(array), definition(array), rtol=tolerance, atol=0)


SMALLEST_NORMAL_SINGLE = 2.0**-126


def exponent_counts_of(array):
    counts = [0] * 256
    for x in values(array):
        if math.isnan(x):
            counts[255] += 1
        elif math.isinf(x):
            counts[254] += 1
        elif x != 0:
            fraction, exponent = math.frexp(abs(x))  # 2^(exponent - 1) <= |x| < 2^exponent
            if fraction == 0.5:
                exponent -= 1
            counts[max(exponent + 126, 0)] += 1
    return counts


@quick
@given(arrays(dtypes=[numpy.float32]))
def test_exponent_counts(array):
    numpy.testing.assert_array_equal(statistics.exponent_counts(array), exponent_counts_of(array))


@pytest.mark.parametrize('sign', [1, -1])
def test_exponent_counts_at_the_powers_of_two(sign):
    exponents = numpy.arange(-126, 128)
    powers = numpy.ldexp(1.0, exponents).astype(numpy.float32)
    nexts = numpy.nextafter(powers, numpy.float32(INF))
    for exponent, power, above in zip(exponents, powers, nexts):
        at_power = statistics.exponent_counts(numpy.full(1, sign * power, numpy.float32))
        assert numpy.flatnonzero(at_power).tolist() == [exponent + 126]
        above_power = statistics.exponent_counts(numpy.full(1, sign * above, numpy.float32))
        assert numpy.flatnonzero(above_power).tolist() == [exponent + 127]


def test_exponent_counts_of_nothing():
    for array in (numpy.zeros((0, 3)), numpy.zeros(7), -numpy.zeros(())):
        counts = statistics.exponent_counts(array.astype(numpy.float32))
        assert counts.shape == (256,) and not counts.any()


@quick
@given(arrays(dtypes=[numpy.float32]), st.integers(-126, 127), st.integers(0, 60))
@example(numpy.array([0, -0.0, 1e-45, 2.0**-24, 2.0**-25, 1, 65504, INF, NAN], 'f'), -25, 41)
def test_magnitude_histogram(array, lowest, bins):
    highest = min(lowest + bins, 127)
    magnitudes = [abs(x) for x in values(array)]
    expected = [
        sum(x == 0 for x in magnitudes),
        sum(0 < x <= 2.0**lowest for x in magnitudes),
        *(
            sum(2.0**exponent < x <= 2.0 ** (exponent + 1) for x in magnitudes)
            for exponent in range(lowest, highest)
        ),
        sum(x > 2.0**highest for x in magnitudes),
        sum(math.isnan(x) for x in magnitudes),
    ]
    counts = statistics.magnitude_histogram(array, lowest, highest)
    numpy.testing.assert_array_equal(counts, expected)
    assert counts.sum() == array.size


@quick
@given(
    hnp.arrays(
        numpy.float32,
        st.integers(1, 40),
        elements=st.one_of(
            st.floats(SMALLEST_NORMAL_SINGLE, 2.0**127, width=32),
            st.floats(-1, -(2.0**-40), width=32),
            st.integers(-30, 5).map(lambda exponent: 2.0**exponent),
            st.just(0.0),
        ),
    ),
    st.sampled_from([2.0**-25, 2.0**-134, 1.0]),
    st.sampled_from([1e-3, 0.1, 0.25, 0.5, 0.9]),
)
@example(numpy.array([2.0**-25], numpy.float32), 2.0**-25, 0.1)
@example(numpy.array([1e-30, 1, 1, 1], numpy.float32), 2.0**-25, 0.25)
@example(numpy.zeros(3, numpy.float32), 2.0**-25, 0.25)
def test_smallest_scale_that_keeps_against_all_powers_of_two(array, threshold, rate):
    shift = statistics.smallest_scale_that_keeps(statistics.exponent_counts(array), threshold, rate)
    magnitudes = [abs(x) for x in values(array) if x != 0]
    if not magnitudes:
        assert math.isnan(shift)
        return
    accepted = fractions.Fraction(rate) * len(magnitudes)
    expected = next(
        2.0**exponent
        for exponent in range(-300, 301)
        if sum(x * 2.0**exponent <= threshold for x in magnitudes) <= accepted
    )
    assert shift == expected


def test_smallest_scale_that_keeps_takes_a_singles_subnormals_for_the_smallest_normal():
    counts = statistics.exponent_counts(numpy.array([1e-45], numpy.float32))
    assert statistics.smallest_scale_that_keeps(counts, 2.0**-25, 0.1) == 2.0**-25 / 2.0**-127


def rounded(array, format):
    if format is formats.BFLOAT16:
        bits = array.view(numpy.uint32).astype(numpy.int64)
        bits += 0x7FFF + ((bits >> 16) & 1)  # carries into the upper half: nearest even
        return (bits & 0xFFFF0000).astype(numpy.uint32).view(numpy.float32)
    with numpy.errstate(over='ignore'):
        return array.astype(DTYPE_OF.get(format.name, format.name)).astype(numpy.float64)


DTYPE_OF = {'float8_e5m2': ml_dtypes.float8_e5m2, 'float8_e4m3': ml_dtypes.float8_e4m3fn}
FORMATS = [
    formats.FLOAT16,
    formats.BFLOAT16,
    formats.FLOAT8_E5M2,
    formats.FLOAT8_E4M3,
    formats.FLOAT32,
    formats.FLOAT64,
]


@pytest.mark.parametrize('format', FORMATS, ids=lambda format: format.name)
@quick
@given(array=arrays(dtypes=[numpy.float32], allow_nan=False))
@example(array=numpy.array([2.0**-25, -(2.0**-25), 2.0**-24, 0, -0.0, 65519.996, 65520], 'f'))
@example(array=numpy.array([2.0**-134, 1e-45, 3.4028235e38, -3.39e38, 3.3961775e38, INF], 'f'))
def test_losses_are_what_rounding_loses(array, format):
    after = rounded(array, format)
    lost, overflowed = statistics.count_underflow_and_overflow(array, format)
    assert lost == ((array != 0) & (after == 0)).sum()
    assert overflowed == (numpy.isfinite(array) & ~numpy.isfinite(after)).sum()


@pytest.mark.parametrize(
    'format, kept',
    [
        (formats.FLOAT8_E5M2, [2.0**-16, 57344, 61440 - 2.0**-8]),
        (formats.FLOAT8_E4M3, [2.0**-9, 448, 464]),
    ],
    ids=lambda format: getattr(format, 'name', ''),
)
def test_losses_in_the_fp8s(format, kept):
    kept = numpy.array(kept, numpy.float32)
    assert statistics.count_underflow_and_overflow(kept, format) == (0, 0)
    lost = numpy.float32(format.smallest_subnormal / 2)
    overflowing = numpy.nextafter(kept[-1], numpy.float32(INF))
    beyond = numpy.array([lost, -lost, 0, overflowing, -overflowing, -1e5, INF], numpy.float32)
    assert statistics.count_underflow_and_overflow(beyond, format) == (2, 3)


def test_losses_at_the_thresholds_of_float16():
    tiny, huge = numpy.float32(2.0**-25), numpy.float32(65520)
    up, down = numpy.float32(INF), numpy.float32(0)
    array = numpy.array(
        [tiny, numpy.nextafter(tiny, up), 0, huge, numpy.nextafter(huge, down), -INF, NAN],
        numpy.float32,
    )
    assert statistics.count_underflow_and_overflow(array, formats.FLOAT16) == (1, 1)
    assert statistics.count_underflow_and_overflow(-array, formats.FLOAT16) == (1, 1)


COUNTS = {
    'exponent_counts': (statistics.exponent_counts, exponent_counts_of),
    'magnitude_counts': (
        lambda array: statistics.magnitude_histogram(array, -126, 127)[1:-1],
        lambda array: exponent_counts_of(array)[:255],
    ),
    'count_underflow_and_overflow': (
        lambda array: statistics.count_underflow_and_overflow(array, formats.FLOAT16),
        lambda array: (0, 0),
    ),
}


@pytest.mark.parametrize('layout', sorted(LAYOUTS))
@pytest.mark.parametrize('name', sorted(COUNTS))
def test_counts_of_any_layout_in_memory(name, layout):
    rng = numpy.random.RandomState(0)
    array = rng.standard_normal((10, 9)) * 2.0 ** rng.randint(-10, 10, (10, 9))
    array = to_float32(array.astype(numpy.float16))
    array[2] = 0
    array.flags.writeable = False  # what it reads, it leaves alone
    array = LAYOUTS[layout](array)
    function, definition = COUNTS[name]
    numpy.testing.assert_array_equal(function(array), definition(array))
