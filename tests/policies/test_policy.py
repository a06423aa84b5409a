"""Policies are values, with a protocol that users can keep, and errors that name the part."""

import copy
import dataclasses
import pickle

import chainerlp
from chainerlp import policies
from chainerlp.functions import LayerScale
from tests.policies.drawn import (
    BOUNDED,
    EVERY,
    INF,
    NAN,
    OURS,
    each,
    normal,
)

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest

# A policy has an answer to whatever it is given, and no warning.
pytestmark = pytest.mark.filterwarnings('error')


def test_arguments_by_position():
    assert policies.Adaptive(1e-4, 128.0, 4096.0, False, 100, 'bfloat16') == policies.Adaptive(
        threshold=1e-4,
        max_scale=128.0,
        max_total_scale=4096.0,
        power_of_two=False,
        interval=100,
        format='bfloat16',
    )
    shared = ['max_scale', 'max_total_scale', 'power_of_two', 'interval', 'format']
    names = {cls: [field.name for field in dataclasses.fields(cls)] for cls in BOUNDED}
    assert names == {
        policies.Adaptive: ['threshold'] + shared + ['variance'],
        policies.AbsRange: shared,
        policies.ElementWiseRange: shared,
        policies.LogNormal: ['threshold'] + shared,
        policies.PerSample: ['threshold'] + shared,
        policies.Amax: ['margin'] + shared,
        policies.Measured: ['threshold', 'margin'] + shared,
    }


def test_defaults():
    assert policies.Adaptive() == policies.Adaptive(1e-3, 16.0, 1024.0, True, 1, 'float16')
    for cls in (policies.AbsRange, policies.ElementWiseRange):
        assert cls() == cls(16.0, 1024.0, True, 1, 'float16')
    assert policies.LogNormal() == policies.LogNormal(1e-3, 16.0, 1024.0, True, 1, 'float16')
    assert policies.Measured().threshold == 1e-3
    for cls in OURS:
        assert (cls().max_scale, cls().max_total_scale) == (INF, INF)


@pytest.mark.parametrize('policy', EVERY, ids=repr)
def test_a_policy_is_a_frozen_value(policy):
    for twin in (
        eval(repr(policy), {**vars(policies), 'inf': INF}),
        copy.deepcopy(policy),
        pickle.loads(pickle.dumps(policy)),
    ):
        assert twin == policy and hash(twin) == hash(policy)
        assert repr(twin) == repr(policy)
    assert len(set(EVERY)) == len(EVERY)
    for field in dataclasses.fields(policy):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(policy, field.name, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.anything = 1


def test_policies_that_differ_in_one_argument_are_not_equal():
    assert policies.Adaptive() != policies.Adaptive(interval=2)
    assert policies.Adaptive() != policies.LogNormal()
    assert policies.Amax() != policies.Measured()
    assert policies.Fixed(1) != policies.Fixed(2)
    assert policies.Fixed(1) == policies.Fixed(1.0)
    assert dataclasses.replace(policies.Adaptive(), interval=2) == policies.Adaptive(interval=2)


def test_only_our_own_policies_scale_weights_on_their_own():
    assert [policy.scales_weights for policy in EVERY] == [False] * 4 + [True] * 3 + [False]


@pytest.mark.parametrize('policy', EVERY, ids=repr)
def test_every_policy_has_an_interval(policy):
    assert policy.interval == 1


WRONG = {
    'threshold': [0, 0.0, 1, 1.0, -0.1, 2, NAN, INF, '0.1', None, True, 1j, [0.1]],
    'margin': [-1, -1e-9, INF, NAN, '4', None, True],
    'max_scale': [0, 0.0, -1, -INF, NAN, '16', None, True],
    'max_total_scale': [0, -1.0, NAN, '1024', None, False],
    'power_of_two': [0, 1, 'yes', None, 2.0],
    'variance': ['mean', None, 1, ['sum']],
    'interval': [0, -1, 1.0, 1.5, '1', None, True, INF],
    'format': ['fp16', 'FLOAT16', '', None, 16, numpy.float16, ['float16'], 'a\nb'],
}


@each
def test_a_wrong_argument_is_an_error_of_one_line_that_names_it(cls):
    for field in dataclasses.fields(cls):
        for value in WRONG[field.name]:
            with pytest.raises(ValueError) as caught:
                cls(**{field.name: value})
            message = str(caught.value)
            assert message.startswith(f'{cls.__name__}: {field.name} must be ')
            assert message.endswith(f', not {value!r}')
            assert '\n' not in message


@pytest.mark.parametrize('scale', [0, -1, INF, NAN, '128', None, True, [1], 'a\nb'])
def test_a_wrong_constant_is_an_error_of_one_line_that_names_it(scale):
    with pytest.raises(ValueError) as caught:
        policies.Fixed(scale)
    message = str(caught.value)
    assert message.startswith('Fixed: scale must be ')
    assert message.endswith(f', not {scale!r}')
    assert '\n' not in message


@each
def test_numbers_of_numpy_are_as_good_as_pythons(cls):
    policy = cls(
        max_scale=numpy.float32(8), max_total_scale=numpy.int64(64), interval=numpy.int32(3)
    )
    gy, W = normal(0, 4, 6, scale=1e-7), normal(1, 6, 2)
    alpha = policy.scale(gy, W, 16.0)
    assert type(alpha) is float
    assert alpha == cls(max_scale=8.0, max_total_scale=64.0).scale(gy, W, 16.0)


class Halving(policies.Policy):
    """What a user writes: one method."""

    def scale(self, gy, W, total_scale=1.0, **context):
        return 0.5


def test_a_policy_of_ones_own_is_one_method():
    policy = policies.check(Halving())
    assert (policy.interval, policy.scales_weights) == (1, False)
    assert policy.within_bounds(8.0, 1.0) == 8.0
    link = chainerlp.convert(L.Linear(3, 2), policy)
    link.W.array, link.b.array = link.W.array.astype('e'), link.b.array.astype('e')
    link.cleargrads()
    y = link(chainer.Variable(numpy.ones((2, 3), 'e')))
    chainerlp.backward(F.sum(y))
    assert y.creator_node.scale == 0.5


class _Twice:
    def scale(self, *args, **context):
        return 2 * super().scale(*args, **context)


class Doubling(policies.Adaptive):
    def scale(self, *args, **context):
        return 2 * super().scale(*args, **context)


class MixedIn(_Twice, policies.Adaptive):
    pass


class OfDoubling(Doubling):
    pass


class WithTotal(Doubling):
    def scale_and_total(self, *args, **context):
        return 1.0, 7.0


@pytest.mark.parametrize('cls', [Doubling, MixedIn, OfDoubling])
def test_the_total_scale_is_that_of_the_own_method(cls):
    gy, W = normal(0, 4, 6, scale=1e-7), normal(1, 6, 2)
    alpha = policies.Adaptive().scale(gy, W, 4.0)
    assert policies.Adaptive().scale_and_total(gy, W, 4.0) == (alpha, 4 * alpha)
    assert cls().scale_and_total(gy, W, 4.0) == (2 * alpha, 8 * alpha)
    assert WithTotal().scale_and_total(gy, W, 4.0) == (1.0, 7.0)


def test_a_policy_that_is_no_subclass_need_not_know_of_the_total_scale():
    class Mine:
        interval, scales_weights, needs_product = 2, False, False

        def scale(self, gy, W, total_scale=1.0, **context):
            return 0.5

        def within_bounds(self, scale, total_scale, backoff=1.0):
            return min(scale, 0.25)

    layer_scale = LayerScale(policies.check(Mine()))
    gy = numpy.ones((2, 3), 'e')
    context = {'terms': 3, 'product': None, 'backoff': 1.0}
    assert layer_scale.choose(0, gy, gy, 8.0, **context) == (0.5, 4.0)
    assert layer_scale.choose(0, gy, gy, 8.0, **context) == (0.25, 2.0)


@pytest.mark.parametrize('part', ['interval', 'scales_weights', 'needs_product', 'within_bounds'])
def test_what_lacks_a_part_of_the_protocol_is_refused_with_its_name(part):
    parts = {'interval', 'scales_weights', 'needs_product', 'within_bounds', 'scale'} - {part}
    incomplete = type('Mine', (), {name: lambda *args: 1.0 for name in parts})()
    with pytest.raises(TypeError, match=f'^policy Mine has no {part}: derive it from .*Policy$'):
        chainerlp.convert(L.Linear(3, 2), incomplete)
    with pytest.raises(TypeError, match=f'^policy Mine has no {part}'):
        chainerlp.AdaptiveLossScaling(chainer.optimizers.SGD(), incomplete)


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32, numpy.float64])
def test_measured_takes_a_product_of_any_float_dtype(dtype):
    product = numpy.array([2.0**-20, 2.0**-10, 1.0] * 100, dtype)
    gy = W = numpy.ones((1, 1), numpy.float16)
    expected = policies.Measured().scale(gy, W, product=product.astype('f'))
    assert policies.Measured().scale(gy, W, product=product) == expected == 1.0
    tiny = (product * dtype(2.0**-4)).astype(dtype)
    found = policies.Measured(0.1).scale(gy, W, product=(tiny * dtype(2.0**-3)).astype(dtype))
    assert found == policies.Measured(0.1).scale(gy, W, product=(tiny * dtype(2.0**-3)).astype('f'))
