"""The statistics, each against its definition in plain Python floats."""

import math
import statistics as by_definition

from chainerlp import statistics
from tests.drawn_arrays import DTYPES, arrays, finite_arrays, values

import numpy
import pytest
from hypothesis import example, given, settings

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
    'transposed': lambda a: a.T,
    'strided': lambda a: a[::2, ::3],
    'reversed': lambda a: a[::-1, ::-1],
    'a column': lambda a: a[:, 1],
    'Fortran': numpy.asfortranarray,
    'broadcast': lambda a: numpy.broadcast_to(a[:1], a.shape),
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
