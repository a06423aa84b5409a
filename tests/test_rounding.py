"""Rounding to a format, saturating: against ml_dtypes, bit for bit."""

from chainerlp import formats
from chainerlp.rounding import round_saturating

import ml_dtypes
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

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
    assert rounded.dtype == (numpy.float16 if name == 'float16' else numpy.float32)
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
