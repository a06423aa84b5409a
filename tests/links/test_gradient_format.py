"""Data gradients that are rounded to a lower format before they are stored."""

import chainerlp
from chainerlp import formats, policies
from tests.links.test_scaled_links import LAYERS, make, run
from tests.test_rounding import DTYPES, expected

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers

every_format = pytest.mark.parametrize('name', DTYPES)
either_dtype = pytest.mark.parametrize('dtype', ['float16', 'float32'])


def one_layer(dtype, gy_scale=1e-3):
    random = numpy.random.RandomState(0)
    link = L.Linear(20, 10)
    link.W.array = random.standard_normal((10, 20)).astype(dtype)
    link.b.array = numpy.zeros(10, dtype)
    x = chainer.Variable(random.standard_normal((30, 20)).astype(dtype))
    gy = (random.standard_normal((30, 10)) * gy_scale).astype(dtype)
    return link, x, gy


def gradient(link, x, gy, backward=chainerlp.backward):
    y = link(x)
    y.grad = gy.copy()
    link.cleargrads()
    x.cleargrad()
    backward(y)
    return y.creator, x.grad


@every_format
@either_dtype
@pytest.mark.parametrize('policy', [policies.Fixed(1), policies.Fixed(64), policies.PerSample()])
def test_gx_is_the_scaled_product_rounded_to_the_format(name, dtype, policy):
    if name == 'bfloat16' and dtype == 'float16':
        pytest.skip('refused: see below')
    link, x, gy = one_layer(dtype)
    chainerlp.convert(link, policy, gradient_format=name)
    function, gx = gradient(link, x, gy)
    product = gy.astype('f') @ link.W.array.astype('f') * numpy.float32(function.scale)
    values, _ = expected(product, name)
    with numpy.errstate(over='ignore'):
        numpy.testing.assert_array_equal(gx * numpy.float32(function.scale), values)
    assert getattr(link.layer_scale.policy, 'format', name) == name
    # The weight's gradient is not passed down: it is the dtype's.
    exact = gy.astype('d').T @ x.array.astype('d')
    assert numpy.abs(chainerlp.unscaled_grad(link.W) - exact).max() < 2.0**-10 * abs(exact).max()


@every_format
@either_dtype
def test_under_plain_backward_it_is_rounded_unscaled(name, dtype):
    if name == 'bfloat16' and dtype == 'float16':
        return
    link, x, gy = one_layer(dtype)
    chainerlp.convert(link, policies.Amax(), gradient_format=name)
    _, gx = gradient(link, x, gy, chainer.Variable.backward)
    product = gy.astype('f') @ link.W.array.astype('f')
    numpy.testing.assert_array_equal(gx, expected(product, name)[0].astype(dtype))


def test_it_saturates():
    link, x, gy = one_layer('float32', gy_scale=1e4)
    chainerlp.convert(link, policies.Fixed(1), gradient_format='float8_e4m3')
    _, gx = gradient(link, x, gy)
    assert numpy.abs(gx).max() == 448


def test_a_format_that_its_array_cannot_hold_is_refused():
    link, x, gy = one_layer('float16')
    chainerlp.convert(link, policies.Amax(), gradient_format='bfloat16')
    with pytest.raises(ValueError, match="'bfloat16' has a wider range than the float16"):
        gradient(link, x, gy)


def test_what_is_wrong_is_said():
    link = L.Linear(2, 2)
    with pytest.raises(ValueError, match="gradient_format must be one of .*, not 'int8'"):
        chainerlp.convert(link, policies.Amax(), gradient_format='int8')
    with pytest.raises(ValueError, match='exclude each other'):
        chainerlp.AdaptiveLossScaling(
            optimizers.SGD(), compute_dtype='float16', gradient_format='float8_e4m3'
        )


@pytest.mark.parametrize('name', LAYERS)
def test_every_layer_rounds_to_it(name):
    """With a format as wide as the dtype nothing changes; with a narrower one the gradients do."""
    results = [
        run(name, chainerlp.convert(make(name, 'e'), policies.Fixed(1), **options), 'e',
            chainerlp.backward)
        for options in ({}, {'gradient_format': 'float16'}, {'gradient_format': 'float8_e4m3'})
    ]  # fmt: skip
    plain, same, rounded = results
    numpy.testing.assert_array_equal(plain.y, rounded.y)
    for key, expected_gradient in plain.gradients.items():
        numpy.testing.assert_array_equal(same.gradients[key], expected_gradient)
    assert any((rounded.gradients[k] != g).any() for k, g in plain.gradients.items())


def deep_network():
    numpy.random.seed(0)
    layers = [L.Linear(20, 20, initialW=chainer.initializers.HeNormal()) for _ in range(8)]
    return L.Classifier(chainer.Sequential(*[f for layer in layers for f in (layer, F.relu)]))


def errors(policy, **options):
    model = deep_network()
    random = numpy.random.RandomState(1)
    x, t = random.standard_normal((64, 20)).astype('f'), random.randint(0, 20, 64).astype('i')
    chainerlp.convert(model, policy, **options)
    return chainerlp.gradient_error(model, model, x, t, show=False)


def test_in_a_narrow_format_scales_save_what_is_lost_without():
    unscaled = errors(policies.Fixed(1), gradient_format='float8_e4m3')
    scaled = errors(policies.PerSample(), gradient_format='float8_e4m3')
    assert unscaled.median > 0.15
    assert scaled.median < 2 * formats.FLOAT8_E4M3.relative_rounding
    assert errors(policies.Fixed(1), gradient_format='bfloat16').median < 2.0**-7
    assert errors(policies.Fixed(1)).median == 0


@pytest.mark.parametrize('dtype', ['float32', 'mixed16'])
def test_it_trains_and_reports_in_the_format(dtype, tmp_path):
    with chainer.using_config('dtype', chainer.mixed16 if dtype == 'mixed16' else numpy.float32):
        model = deep_network()
    optimizer = chainerlp.AdaptiveLossScaling(
        optimizers.MomentumSGD(0.05), policies.PerSample(), gradient_format='float8_e4m3'
    ).setup(model)
    random = numpy.random.RandomState(1)
    t = random.randint(0, 5, 64).astype('i')
    x = (random.standard_normal((64, 20)) + t[:, None]).astype('f' if dtype == 'float32' else 'e')
    examples = chainer.datasets.TupleDataset(x, t)
    updater = chainer.training.updaters.StandardUpdater(
        chainer.iterators.SerialIterator(examples, 64), optimizer
    )
    trainer = chainer.training.Trainer(updater, (30, 'iteration'), out=str(tmp_path))
    trainer.extend(chainerlp.extensions.ScaleReport(trigger=(1, 'iteration')))
    first = float(model(x, t).array)
    trainer.run()
    assert float(model(x, t).array) < 0.6 * first
    assert optimizer.skipped == 0
    rows = chainerlp.extensions.files.read(tmp_path / 'scales.csv')
    assert max(row.underflow_unscaled for row in rows) > 0.1  # of E4M3: float16 would lose nothing
    assert max(row.underflow for row in rows) < 0.05
    assert max(row.absmax for row in rows) < formats.FLOAT8_E4M3.overflow_threshold
