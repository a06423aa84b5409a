"""A scaled cast: Chainer's, but what a policy saves of its gradient before it is rounded."""

import chainerlp
from chainerlp import functions, links, policies
from chainerlp.layer_scale import LayerScale

import chainer
import chainer.functions as F
import numpy
import pytest


def small_gradient(spread=2.0, exponent=-30.0, shape=(4, 11, 6, 5)):
    """Log-normal, in float32: most of it is under 2^-25, which float16 rounds to zero."""
    rng = numpy.random.RandomState(0)
    g = numpy.exp2(exponent + spread * rng.standard_normal(shape)) * rng.choice([-1, 1], shape)
    return g.astype(numpy.float32)


def cast_of(gy, policy, cast=functions.scaled_cast):
    """Casts float16 zeros, and returns them with the cast after a scaled pass from gy."""
    x = chainer.Variable(numpy.zeros(gy.shape, numpy.float16))
    y = cast(x, 'float32', LayerScale(policy))
    y.grad = gy
    chainerlp.backward(y)
    return x, y


@pytest.mark.parametrize('dtypes', [('float16', 'float32'), ('float32', 'float16')])
def test_it_is_chainers_cast_under_chainers_backward(dtypes):
    before, after = dtypes
    results = []
    for cast in (functions.scaled_cast, F.cast):
        x = chainer.Variable(small_gradient(exponent=0).astype(before))
        y = cast(x, after)
        y.grad = small_gradient(exponent=-24).astype(after)
        y.backward()
        results.append((y.array, x.grad))
    for ours, chainers in zip(*results):
        assert ours.dtype == chainers.dtype
        numpy.testing.assert_array_equal(ours, chainers)


def test_what_has_the_dtype_is_returned_as_it_is():
    x = chainer.Variable(numpy.zeros(3, numpy.float32))
    assert functions.scaled_cast(x, 'float32') is x


def test_a_lognormal_cast_saves_what_a_plain_one_loses():
    gy = small_gradient()
    lost = numpy.mean(gy.astype(numpy.float16) == 0)
    x, y = cast_of(gy, policies.LogNormal(max_scale=65504.0, max_total_scale=65504.0))
    # ln|g| has the mean -30 ln 2 and the deviation 2 ln 2, and Φ⁻¹(1e-3) = -3.09: log2 α is
    # -24 + 30 + 2 · 3.09 = 12.18, rounded down.
    assert y.creator.scale == 2.0**12
    assert lost > 0.95
    # At 2^12 elements under 2^-37 are lost, 3.5 deviations below the mean: 0.023 %.
    assert numpy.mean(x.grad == 0) < 1e-3
    # Elsewhere half a unit in the last place of a normal or a subnormal number.
    tolerance = numpy.maximum(numpy.abs(gy) * 2.0**-11, 2.0**-25 / 2**12)
    assert (numpy.abs(x.grad - gy) <= tolerance).all()


def test_its_scale_is_carried_to_the_layers_below_and_divided_out_at_parameters():
    model = chainer.Sequential(chainer.links.Linear(3, 2), links.Cast(lognormal=True))
    with chainer.using_config('dtype', chainer.mixed16):
        model[0] = chainer.links.Linear(3, 2, initialW=1)
    chainerlp.convert(model, policies.Adaptive(max_scale=2.0**15, max_total_scale=2.0**15))
    y = model(numpy.ones((4, 3), numpy.float16))
    y.grad = numpy.full(y.shape, 2.0**-32, numpy.float32)
    model.cleargrads()
    chainerlp.backward(y)
    assert y.creator.total_scale == y.creator.scale == 2.0**8  # to 2^-24: the deviation is 0
    numpy.testing.assert_array_equal(chainerlp.unscaled_grad(model[0].W), 4 * 2.0**-32)


def test_it_keeps_its_scale_over_the_interval_and_a_copy_has_its_own():
    link = links.ScaledCast(policy=policies.Amax(margin=0, interval=2))
    scales = []
    for exponent in (-26, -20, -20):
        y = link(chainer.Variable(numpy.zeros((2, 3), numpy.float16)))
        y.grad = numpy.full((2, 3), 2.0**exponent, numpy.float32)
        chainerlp.backward(y)
        scales.append(y.creator.scale)
    assert scales == [2.0**41, 2.0**41, 2.0**35]  # to 2^15
    assert link.copy().layer_scale is not link.layer_scale


@pytest.mark.parametrize('lognormal', [False, True])
def test_a_model_is_given_the_cast_that_fits_its_policy(lognormal):
    bounds = dict(threshold=1e-2, max_scale=128.0, max_total_scale=4096.0, interval=7)
    cast = links.Cast(lognormal)
    chainerlp.convert(cast, policies.Adaptive(**bounds))
    assert type(cast) is links.ScaledCast
    expected = policies.Adaptive(**bounds, variance='product')
    assert cast.layer_scale.policy == (policies.LogNormal(**bounds) if lognormal else expected)
    chainerlp.convert(cast, policies.Amax())
    assert cast.layer_scale.policy == policies.Amax()
    chainerlp.restore(cast)
    assert type(cast) is links.Cast


def test_a_normal_cast_has_the_deviation_of_the_gradient_alone():
    gy = numpy.random.RandomState(0).normal(0, 2.0**-20, (8, 50)).astype('f')
    policy = policies.Adaptive(max_scale=2.0**15, power_of_two=False, variance='product')
    _, y = cast_of(gy, policy)
    # 0.0012533 is the quantile of (1 + 1e-3) / 2.
    expected = 2.0**-24 / (0.0012533 * numpy.sqrt(numpy.mean(gy.astype(float) ** 2)))
    assert y.creator.scale == pytest.approx(expected, rel=1e-3)


def test_what_it_loses_is_counted_as_a_layers():
    class Net(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope(), chainer.using_config('dtype', chainer.mixed16):
                self.fc = chainer.links.Linear(3, 2)
                self.cast = links.Cast()

        def forward(self, x):
            return F.sum(self.cast(self.fc(x))) * 2.0**-26

    model = Net()
    diagnosis = chainerlp.diagnose(model, model, numpy.ones((2, 3), 'e'), show=False)
    rows = {row.format: row.underflow for row in diagnosis.rows if row.layer == '/cast'}
    assert rows['float16'] == 1
