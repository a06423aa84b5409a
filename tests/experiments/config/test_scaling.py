"""The ways of scaling: their options, and what they are called."""

import dataclasses
import math

from chainerlp import policies
from experiments.config import Sweep, label
from experiments.config.scaling import Adaptive, Amax, Measured, PerSample

import pytest


def scaling(**keys):
    return Sweep(seeds=[0], scaling=[keys]).scaling[0]


@pytest.mark.parametrize(
    'method, policy',
    [
        (Adaptive, policies.Adaptive),
        (PerSample, policies.PerSample),
        (Amax, policies.Amax),
        (Measured, policies.Measured),
    ],
)
def test_a_method_has_the_options_and_the_defaults_of_its_policy(method, policy):
    theirs = {field.name: field.default for field in dataclasses.fields(policy)}
    del theirs['format']  # the dtype says it
    ours = {key: field.default for key, field in method.model_fields.items()}
    for key in ('method', 'dtype', 'compute', 'gradient_format', 'label'):
        del ours[key]
    del ours['initial_scale'], ours['scale_weights']
    assert ours == theirs


@pytest.mark.parametrize(
    'keys, expected',
    [
        ({'method': 'fp32'}, 'fp32'),
        ({'method': 'fixed', 'scale': 128}, 'fixed-scale=128'),
        ({'method': 'fixed', 'scale': 0.5}, 'fixed-scale=0.5'),
        ({'method': 'adaptive', 'threshold': 1e-3}, 'adaptive'),
        ({'method': 'adaptive', 'interval': 1000}, 'adaptive-interval=1000'),
        ({'method': 'adaptive', 'max_scale': math.inf}, 'adaptive-max_scale=inf'),
        ({'method': 'adaptive', 'max_scale': 1e300}, 'adaptive-max_scale=1e+300'),
        ({'method': 'amax', 'scale_weights': False}, 'amax-scale_weights=false'),
        ({'method': 'none', 'dtype': 'float16'}, 'none-dtype=float16'),
        (
            {'method': 'per_sample', 'dtype': 'float32', 'compute': 'float8_e4m3'},
            'per_sample-dtype=float32-compute=float8_e4m3',
        ),
    ],
)
def test_a_label_tells_the_options_that_are_not_the_defaults(keys, expected):
    assert label(scaling(**keys)) == expected


METHODS = ['none', 'adaptive', 'per_sample', 'amax', 'measured']


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('keys', [{'dtype': 'float32'}, {'compute': 'float16'}])
def test_compute_goes_with_float32(method, keys):
    with pytest.raises(ValueError, match='compute with dtype: float32, and neither without'):
        scaling(method=method, **keys)


@pytest.mark.parametrize(
    'keys, message',
    [
        ({'gradient_format': 'bfloat16'}, 'bfloat16 with dtype: float32'),
        ({'dtype': 'float32', 'compute': 'float16', 'gradient_format': 'float16'}, 'compute or'),
        ({'gradient_format': 'int8'}, 'float8_e5m2'),
    ],
)
def test_a_gradient_format_fits_the_dtype(keys, message):
    with pytest.raises(ValueError, match=message):
        scaling(method='amax', **keys)
    for dtype in ('mixed16', 'float32'):
        given = scaling(method='none', dtype=dtype, gradient_format='float8_e4m3')
        assert given.gradient_format == 'float8_e4m3'


@pytest.mark.parametrize('method', ['fp32', 'dynamic'])
def test_what_needs_an_overflow_or_rounds_nothing_has_no_compute(method):
    with pytest.raises(ValueError, match='compute|float32'):
        scaling(method=method, dtype='float32', compute='float16')


def test_a_label_of_its_own_names_the_run():
    assert label(scaling(method='adaptive', max_scale=128.0, label='cifar')) == 'cifar'


def test_two_ways_of_scaling_with_one_label_are_refused():
    two = [{'method': 'none', 'label': 'x'}, {'method': 'fp32', 'label': 'x'}]
    with pytest.raises(ValueError, match='items 0 and 1 are both x'):
        Sweep(seeds=[0], scaling=two)
