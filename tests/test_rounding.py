"""Rounding, bit for bit: to float16 against ``astype``, to any format against ml_dtypes."""

from chainerlp import formats, rounding
from chainerlp.rounding import round_saturating
from tests import drawn_arrays

import ml_dtypes
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

pytestmark = pytest.mark.filterwarnings('error')

BLOCK = 1 << 15  # the block that the module works in; the tests step over its boundaries
EVERY_HALF = numpy.arange(1 << 16, dtype=numpy.uint16).view(numpy.float16)
POSITIVE_HALVES = numpy.arange(0x7C00, dtype=numpy.uint16).view(numpy.float16)


def assert_same_bits(actual, expected):
    """Bit for bit, but for the payload of a NaN."""
    assert isinstance(actual, numpy.ndarray)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    integer = numpy.dtype(f'u{actual.dtype.itemsize}')
    is_nan = numpy.isnan(expected)
    numpy.testing.assert_array_equal(numpy.isnan(actual), is_nan)
    kept = ~is_nan
    numpy.testing.assert_array_equal(actual[kept].view(integer), expected[kept].view(integer))


def by_astype(array):
    with numpy.errstate(over='ignore', invalid='ignore'):
        return array.astype(numpy.float16)


def in_range(count, seed=0):
    """Random float32 numbers, from far under the smallest half up to 65504, of both signs."""
    rng = numpy.random.RandomState(seed)
    exponents = rng.randint(127 - 30, 127 + 16, count)
    bits = (exponents << 23) | rng.randint(0, 1 << 23, count) | (rng.randint(0, 2, count) << 31)
    array = bits.astype(numpy.uint32).view(numpy.float32)
    return numpy.clip(array, -65504, 65504).astype(numpy.float32)


def any_bits(count, seed=0):
    rng = numpy.random.RandomState(seed)
    bits = rng.randint(0, 1 << 32, count, dtype=numpy.uint64).astype(numpy.uint32)
    # The quiet bit is set in every NaN: converting a signalling one is an invalid operation.
    array = bits.view(numpy.float32)
    bits[numpy.isnan(array)] |= 0x400000
    return array


LAYOUTS = {
    'contiguous': lambda a: a,
    **drawn_arrays.LAYOUTS,
    'four axes, moved': lambda a: numpy.moveaxis(a.reshape(2, -1, 3, 5), 1, 3),
    '0-d': lambda a: a[1:2, 1].reshape(()),
    'empty': lambda a: a[:0],
    'empty, two axes': lambda a: a[:, :0],
}


def test_every_half_becomes_the_same_single():
    assert_same_bits(rounding.to_float32(EVERY_HALF), EVERY_HALF.astype(numpy.float32))


def test_every_half_comes_back():
    singles = rounding.to_float32(EVERY_HALF)
    assert_same_bits(rounding.from_float32(singles, numpy.float16), EVERY_HALF)
    finite = EVERY_HALF[numpy.isfinite(EVERY_HALF)]  # blocks without an inf take another way
    assert_same_bits(rounding.from_float32(rounding.to_float32(finite), numpy.float16), finite)


@pytest.mark.parametrize('sign', [1, -1])
@pytest.mark.parametrize('direction', [0, None, numpy.inf], ids=['below', 'tie', 'above'])
def test_half_way_between_any_two_halves_rounds_to_even(direction, sign):
    values = POSITIVE_HALVES.astype(numpy.float32)
    ties = (values[:-1] + values[1:]) / 2  # exact: a single has 13 bits more
    if direction is not None:
        ties = numpy.nextafter(ties, numpy.float32(direction))
    rounded = rounding.from_float32(sign * ties, numpy.float16)
    assert_same_bits(rounded, by_astype(sign * ties))
    if direction is None:
        assert not (rounded.view(numpy.uint16) & 1).any()


def test_every_single_near_a_limit_is_rounded_as_by_astype():
    # The 2^12 singles on either side of each place where rounding changes its ways.
    for landmark in (2.0**-25, 2.0**-24, 1.5 * 2.0**-24, 2.0**-14, 1.0, 65504.0):
        bits = int(numpy.float32(landmark).view(numpy.uint32))
        near = numpy.arange(bits - 4096, bits + 4096, dtype=numpy.uint32).view(numpy.float32)
        assert_same_bits(rounding.from_float32(near, numpy.float16), by_astype(near))
        small = near[near < 65520]
        assert_same_bits(rounding.from_float32(-small, numpy.float16), by_astype(-small))


@pytest.mark.parametrize('seed', range(4))
def test_numbers_in_range_are_rounded_as_by_astype(seed):
    array = in_range(1 << 17, seed)
    assert_same_bits(rounding.from_float32(array, numpy.float16), by_astype(array))


@pytest.mark.parametrize('seed', range(4))
def test_any_bit_pattern_is_rounded_as_by_astype(seed):
    array = any_bits(1 << 17, seed)
    assert_same_bits(rounding.from_float32(array, numpy.float16), by_astype(array))


def test_subnormal_singles_and_signed_zeros_become_signed_zeros():
    rng = numpy.random.RandomState(0)
    bits = rng.randint(0, 1 << 23, 1000).astype(numpy.uint32)
    bits[:2] = 0, 1
    for sign in (0, 0x80000000):
        array = (bits | numpy.uint32(sign)).view(numpy.float32)
        rounded = rounding.from_float32(array, numpy.float16)
        assert (rounded.view(numpy.uint16) == sign >> 16).all()


def test_magnitudes_from_65520_become_inf_without_a_warning():
    below = numpy.nextafter(numpy.float32(65520), numpy.float32(0))
    array = numpy.array([below, 65520, 1e5, 3e38, -below, -65520, -3e38], numpy.float32)
    rounded = rounding.from_float32(array, numpy.float16)
    inf = numpy.inf
    numpy.testing.assert_array_equal(rounded, [65504, inf, inf, inf, -65504, -inf, -inf])


@pytest.mark.parametrize('size', [0, 1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 7])
def test_sizes_around_block_boundaries(size):
    array = in_range(size, seed=size)
    half = by_astype(array)
    assert_same_bits(rounding.from_float32(array, numpy.float16), half)
    assert_same_bits(rounding.to_float32(half), half.astype(numpy.float32))


@pytest.mark.parametrize('special', [numpy.inf, -numpy.inf, numpy.nan, 65520, -1e30])
@pytest.mark.parametrize('place', [0, BLOCK - 1, BLOCK, 2 * BLOCK])
def test_one_special_number_anywhere_disturbs_no_other(special, place):
    array = in_range(2 * BLOCK + 1)
    array[place] = special
    assert_same_bits(rounding.from_float32(array, numpy.float16), by_astype(array))


@pytest.mark.parametrize('layout', sorted(LAYOUTS))
@pytest.mark.parametrize('has_inf', [False, True], ids=['finite', 'with inf'])
def test_any_layout_in_memory(layout, has_inf):
    array = in_range(60 * 30).reshape(60, 30)
    if has_inf:
        array[1] = numpy.inf
    single = LAYOUTS[layout](array)
    half = LAYOUTS[layout](by_astype(array))
    assert_same_bits(rounding.from_float32(single, numpy.float16), by_astype(single))
    assert_same_bits(rounding.to_float32(half), half.astype(numpy.float32))


@pytest.mark.parametrize('layout', sorted(LAYOUTS))
def test_arguments_stay_as_they_are_and_may_be_read_only(layout):
    array = in_range(60 * 30).reshape(60, 30)
    half = by_astype(array)
    array.flags.writeable = half.flags.writeable = False
    before = array.tobytes(), half.tobytes()
    to_half = rounding.from_float32(LAYOUTS[layout](array), numpy.float16)
    to_single = rounding.to_float32(LAYOUTS[layout](half))
    assert (array.tobytes(), half.tobytes()) == before
    to_half[...] = 7  # nor does a result share its memory with an argument, or with a table
    to_single[...] = 7
    assert (array.tobytes(), half.tobytes()) == before
    assert_same_bits(rounding.to_float32(EVERY_HALF), EVERY_HALF.astype(numpy.float32))


@settings(deadline=None, max_examples=100)
@given(
    hnp.arrays(
        numpy.float32,
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
        elements=st.floats(width=32),
    )
)
def test_any_array_is_rounded_as_by_astype(array):
    quiet = numpy.where(numpy.isnan(array), numpy.float32(numpy.nan), array)
    quiet = numpy.asarray(quiet, numpy.float32)
    half = rounding.from_float32(quiet, numpy.float16)
    assert_same_bits(half, by_astype(quiet))
    assert_same_bits(rounding.to_float32(half), half.astype(numpy.float32))


@pytest.mark.parametrize('dtype', [numpy.float16, 'float16', 'e', numpy.dtype('float16')])
def test_the_dtype_may_be_named_in_any_way(dtype):
    array = any_bits(1000)
    assert_same_bits(rounding.from_float32(array, dtype), by_astype(array))


def test_an_array_that_has_the_dtype_is_returned_itself():
    single = in_range(10)
    assert rounding.to_float32(single) is single
    assert rounding.from_float32(single, numpy.float32) is single
    double = single.astype(numpy.float64)
    assert rounding.from_float32(double, numpy.float64) is double


def test_other_dtypes_are_converted_by_numpy():
    single = any_bits(1000)
    double = single.astype(numpy.float64)
    assert_same_bits(rounding.from_float32(single, numpy.float64), double)
    assert_same_bits(rounding.to_float32(double), single)
    assert_same_bits(rounding.from_float32(double, numpy.float16), by_astype(double))
    swapped = EVERY_HALF.astype('>f2')
    assert_same_bits(rounding.to_float32(swapped), EVERY_HALF.astype(numpy.float32))


DTYPES = {
    'float16': numpy.float16,
    'bfloat16': ml_dtypes.bfloat16,
    'float8_e5m2': ml_dtypes.float8_e5m2,
    'float8_e4m3': ml_dtypes.float8_e4m3fn,
}
every_format = pytest.mark.parametrize('name', DTYPES)


def expected(array, name):
    """What ml_dtypes rounds to, but for what is beyond the format; and how much that is."""
    with numpy.errstate(all='ignore'):
        rounded = array.astype(DTYPES[name]).astype(numpy.float32)
    is_finite = numpy.isfinite(array)
    beyond = is_finite & ~numpy.isfinite(rounded)
    largest = numpy.float32(formats.get(name).largest)
    rounded[beyond] = numpy.copysign(largest, array[beyond])
    rounded[~is_finite] = array[~is_finite]
    return rounded, beyond.sum()


def assert_rounded(array, name):
    rounded, saturated = round_saturating(array, formats.get(name))
    values, count = expected(array, name)
    assert rounded.dtype == numpy.float32
    assert saturated == count
    rounded = rounded.astype(numpy.float32)
    is_nan = numpy.isnan(values)
    numpy.testing.assert_array_equal(numpy.isnan(rounded), is_nan)
    bits = rounded.view(numpy.uint32)[~is_nan]
    numpy.testing.assert_array_equal(bits, values.view(numpy.uint32)[~is_nan])


@every_format
def test_any_number_is_rounded_as_by_ml_dtypes(name):
    random = numpy.random.RandomState(0)
    bits = random.randint(0, 1 << 32, 3 * (1 << 15) + 7, dtype=numpy.uint64)  # over block borders
    array = bits.astype(numpy.uint32).view(numpy.float32)
    assert_rounded(array[~numpy.isnan(array)], name)


@every_format
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_ties_neighbours_and_what_is_not_finite(name, data):
    format = formats.get(name)
    numbers = st.one_of(
        st.floats(width=32),
        st.integers(-300, 300).map(lambda k: k * format.smallest_subnormal / 4),  # with all ties
        st.integers(-64, 64).map(lambda k: format.largest + k * 2.0**-8 * format.largest),
    )
    numbers = numbers.filter(lambda x: not numpy.isfinite(x) or abs(x) < 3.4e38)
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    assert_rounded(data.draw(hnp.arrays(numpy.float32, shapes, elements=numbers)), name)


@every_format
def test_a_scale_is_applied_before_rounding(name):
    array = numpy.float32([2.0**-120, -(2.0**-110), 2.0**30])  # the last leaves float32
    rounded, saturated = round_saturating(array, formats.get(name), 2.0**110)
    assert rounded[0] == 2.0**-10 or name == 'float8_e4m3'  # there 2^-10 is the tie, and zero
    assert rounded[1] == -1
    assert rounded[2] == numpy.float32(formats.get(name).largest)
    assert saturated == 1
    assert array[2] == 2.0**30  # what was given is not written to


def test_what_was_saturated_before_is_counted_on():
    array = numpy.float32([1e6, 1, -1e6])
    assert round_saturating(array, formats.FLOAT16, saturated=40)[1] == 42
    assert round_saturating(array, formats.FLOAT8_E4M3, saturated=40)[1] == 42
