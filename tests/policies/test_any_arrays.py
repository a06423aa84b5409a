"""Every policy has an answer to any arrays."""

import itertools

from chainerlp import policies
from tests.policies.drawn import (
    ANY,
    INF,
    NAN,
    OF_THE_PRODUCT,
    each,
    for_each,
    is_power_of_two,
    normal,
    pairs,
    product_of,
    terms_of,
    unbounded,
)

import numpy
import pytest
from hypothesis import given

# A policy has an answer to whatever it is given, and no warning.
pytestmark = pytest.mark.filterwarnings('error')


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
        (policies.PerSample, 256.0),  # 2^-25 / (1.2533e-3 · 3 · 2^-24) = 133.0
        (policies.Amax, 2.0**34),  # 4094 / (3 · 2^-24) = 2^34.41
        (policies.Measured, 1.0),
    ],
)
def test_the_scale_of_a_single_subnormal(cls, expected, dtype):
    gy, W = numpy.full((1, 1), 3 * 2.0**-24, dtype), numpy.ones((1, 1), dtype)
    assert unbounded(cls).scale(gy, W) == expected


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
