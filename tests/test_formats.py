"""The limits of the formats, against NumPy's own and the published ones."""

import dataclasses
import fractions
import itertools
import math

from chainerlp import formats

import numpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st


def bfloat16_of(value):
    """Rounds a float to bfloat16, to nearest even, by carrying into the upper half of a float32."""
    bits = int(numpy.float32(value).view(numpy.uint32))
    bits += 0x7FFF + ((bits >> 16) & 1)
    return float(numpy.uint32(bits & 0xFFFF0000).view(numpy.float32))


NAMES = ['float16', 'bfloat16', 'float8_e5m2', 'float8_e4m3', 'float32', 'float64']

ROUND = {
    'float16': lambda value: float(numpy.float64(value).astype(numpy.float16)),
    'bfloat16': bfloat16_of,
    'float32': lambda value: float(numpy.float64(value).astype(numpy.float32)),
}
# What lies next to a threshold, in the precision that is rounded from.
NEIGHBOUR = {
    'float16': numpy.nextafter,
    'bfloat16': lambda value, to: numpy.nextafter(numpy.float32(value), numpy.float32(to)),
    'float32': numpy.nextafter,
}


@pytest.mark.parametrize('name', ['float16', 'float32', 'float64'])
def test_limits_are_those_of_numpy(name):
    info = numpy.finfo(name)
    format = formats.get(name)
    assert format.largest == float(info.max)
    assert format.smallest_normal == float(info.smallest_normal)
    assert format.smallest_subnormal == float(info.smallest_subnormal)
    assert format.mantissa_bits == info.nmant
    assert format.exponent_bits == info.bits - info.nmant - 1
    assert format.relative_rounding == float(info.eps) / 2


def test_limits_of_float16_are_those_of_the_paper():
    assert formats.FLOAT16.largest == 65504
    assert formats.FLOAT16.smallest_normal == 2.0**-14
    assert formats.FLOAT16.smallest_subnormal == 2.0**-24
    assert formats.FLOAT16.underflow_threshold == 2.0**-25
    assert formats.FLOAT16.overflow_threshold == 65520
    assert formats.FLOAT16.relative_rounding == 2.0**-11


def test_limits_of_bfloat16_are_those_of_the_upper_half_of_a_float32():
    patterns = numpy.array([0x7F7F, 0x0080, 0x0001], numpy.uint32) << 16
    largest, smallest_normal, smallest_subnormal = patterns.view(numpy.float32)
    assert formats.BFLOAT16.largest == largest
    assert formats.BFLOAT16.smallest_normal == smallest_normal
    assert formats.BFLOAT16.smallest_subnormal == smallest_subnormal
    assert formats.BFLOAT16.relative_rounding == 2.0**-8


@pytest.mark.parametrize(
    'name, largest, smallest_normal, smallest_subnormal',
    [
        ('float8_e5m2', 57344, 2.0**-14, 2.0**-16),
        ('float8_e4m3', 448, 2.0**-6, 2.0**-9),
    ],
)
def test_limits_of_the_fp8s_are_those_of_the_ocp(
    name, largest, smallest_normal, smallest_subnormal
):
    format = formats.get(name)
    assert format.largest == largest
    assert format.smallest_normal == smallest_normal
    assert format.smallest_subnormal == smallest_subnormal


def magnitudes_by_code(format):
    """The values of a format's codes without the sign, from 0 to one past the largest."""
    scale = 2**format.mantissa_bits
    for code in itertools.count():
        exponent, fraction = divmod(code, scale)
        if exponent == 0:
            value = fraction * format.smallest_subnormal
        else:
            value = (1 + fraction / scale) * 2.0 ** (exponent - format.bias)
        yield value
        if value > format.largest:
            return


@pytest.mark.parametrize('name', ['float8_e5m2', 'float8_e4m3', 'float16'])
def test_the_thresholds_are_where_the_nearest_even_code_is_zero_or_past_the_largest(name):
    format = formats.get(name)
    values = list(magnitudes_by_code(format))
    assert values[-2] == format.largest
    ties = [(low + high) / 2 for low, high in zip(values, values[1:])]
    for code, tie in enumerate(ties):
        to_even = code + code % 2
        for magnitude, rounded in [
            (numpy.nextafter(tie, 0), code),
            (tie, to_even),
            (numpy.nextafter(tie, numpy.inf), code + 1),
        ]:
            assert (magnitude <= format.underflow_threshold) == (rounded == 0)
            assert format.overflows(magnitude) == (rounded == len(values) - 1)
    assert format.overflow_threshold == ties[-1]


@pytest.mark.parametrize('name', sorted(ROUND))
def test_numbers_up_to_the_underflow_threshold_round_to_zero(name):
    format = formats.get(name)
    threshold = format.underflow_threshold
    assert ROUND[name](threshold) == 0
    assert ROUND[name](NEIGHBOUR[name](threshold, 1)) == format.smallest_subnormal


@pytest.mark.parametrize('name', sorted(ROUND))
def test_numbers_from_the_overflow_threshold_round_to_inf(name):
    format = formats.get(name)
    threshold = format.overflow_threshold
    below = NEIGHBOUR[name](threshold, 0)
    with numpy.errstate(over='ignore'):
        assert ROUND[name](threshold) == numpy.inf
    assert ROUND[name](below) == format.largest
    assert format.overflows(threshold) and not format.overflows(below)
    numpy.testing.assert_array_equal(
        format.overflows(numpy.array([0, below, threshold, numpy.inf])), [False, False, True, True]
    )


def test_nothing_is_rounded_away_from_float64():
    assert formats.FLOAT64.underflow_threshold == 0
    assert formats.FLOAT64.overflow_threshold == numpy.inf


def test_relative_rounding_is_reached_and_never_passed():
    format = formats.FLOAT16
    rng = numpy.random.RandomState(0)
    values = rng.uniform(1, 2, 10000) * 2.0 ** rng.randint(-14, 15, 10000)
    errors = numpy.abs(values.astype(numpy.float16).astype(numpy.float64) - values) / values
    assert errors.max() <= format.relative_rounding
    just_above_one = 1 + format.relative_rounding  # half-way to the next: as far as it gets
    assert abs(float(numpy.float16(just_above_one)) - just_above_one) == format.relative_rounding


@pytest.mark.parametrize('name', NAMES)
def test_a_format_is_found_by_its_name(name):
    assert formats.get(name).name == name


@pytest.mark.parametrize('name', ['half', 'FLOAT16', '', None, 16, ['float16'], {}])
def test_an_unknown_name_is_an_error_that_lists_the_known_ones(name):
    with pytest.raises(ValueError) as caught:
        formats.get(name)
    message = str(caught.value)
    assert '\n' not in message
    assert repr(name) in message
    for known in NAMES:
        assert known in message


def test_a_format_is_a_value():
    assert formats.Format('float16', 5, 10) == formats.FLOAT16
    assert hash(formats.Format('float16', 5, 10)) == hash(formats.FLOAT16)
    assert eval(repr(formats.BFLOAT16), vars(formats)) == formats.BFLOAT16
    with pytest.raises(dataclasses.FrozenInstanceError):
        formats.FLOAT16.mantissa_bits = 11


@settings(deadline=None, max_examples=60)
@given(st.floats(5e-324, 1e308))
@example(1.0)
@example(5e-324)
@example(float(numpy.nextafter(1024, 0)))
@example(1024.0)
@example(2.0**-126)
def test_floor_power_of_two(value):
    power = float(formats.floor_power_of_two(numpy.float64(value)))
    assert math.frexp(power)[0] == 0.5
    assert power <= value
    assert fractions.Fraction(value) < 2 * fractions.Fraction(power)
