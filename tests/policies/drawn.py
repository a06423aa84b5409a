"""Arrays that the properties of policies are tried on, and the numbers that they are made of."""

import math

from chainerlp import geometry, policies

import numpy
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

INF, NAN = math.inf, math.nan
U_MIN, U_MAX = 2.0**-24, 65504.0

PAPERS = [policies.Adaptive, policies.AbsRange, policies.ElementWiseRange, policies.LogNormal]
OF_THE_PRODUCT = [policies.Amax, policies.Measured]
OF_THE_MAXIMA = [policies.Adaptive, policies.AbsRange, policies.ElementWiseRange]
OURS = [policies.PerSample] + OF_THE_PRODUCT
BOUNDED = PAPERS + OURS
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
