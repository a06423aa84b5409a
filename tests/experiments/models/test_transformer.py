import types

import chainerlp
from chainerlp import policies
from chainerlp.links import ScaledLinear
from experiments import models
from experiments.data import Data
from experiments.models.transformer import Transformer, attention
from experiments.tasks import classification

import chainer
import numpy
import pytest
from chainer import links, optimizers

CLASSES, LENGTH = 7, 6
DTYPES = {
    'float16': numpy.dtype('float16'),
    'float32': numpy.dtype('float32'),
    'mixed16': chainer.mixed16,
}


def build(dtype='float32', layers=2, units=16, heads=4):
    numpy.random.seed(0)
    with chainer.using_config('dtype', DTYPES[dtype]):
        return Transformer(CLASSES, LENGTH, layers, units, heads)


def characters(n=5, length=LENGTH, seed=0):
    return numpy.random.RandomState(seed).randint(0, CLASSES, (n, length)).astype(numpy.int32)


def linear_layers(model):
    return [link for link in model.links() if isinstance(link, links.Linear)]


def test_it_has_the_parameters_of_its_layers():
    # A block: four linear layers of d units, one of them without a bias, and two with 4 d units in
    # between; two normalizations.
    d, block = 16, 4 * 16 * 16 + 3 * 16 + (16 + 1) * 64 + (64 + 1) * 16 + 2 * 2 * 16
    expected = CLASSES * d + LENGTH * d + 3 * block + 2 * d + (d + 1) * CLASSES
    assert build(layers=3).count_params() == expected


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('converted', [False, True])
@pytest.mark.parametrize('length', [LENGTH, 4])
def test_every_position_gets_logits_in_the_configured_dtype(dtype, converted, length):
    model = build(dtype)
    if converted:
        chainerlp.convert(model, policies.Fixed(1))
    computing = numpy.dtype('float32' if dtype == 'float32' else 'float16')
    y = model(characters(length=length))
    assert y.shape == (5, CLASSES, length) and y.dtype == computing
    assert {param.dtype for param in model.params()} == {computing}
    assert numpy.isfinite(y.array).all()


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('position', range(LENGTH))
def test_a_character_changes_the_logits_from_its_own_position_on_and_no_earlier_one(
    dtype, position
):
    model = build(dtype)
    for layer in (layer for block in model.blocks.children() for layer in (block.query, block.key)):
        layer.W.array *= 4  # so that attention is far from even
    chainerlp.convert(model, policies.Fixed(1))  # products are those of a tensor core
    x = characters()
    changed = x.copy()
    changed[:, position] = (changed[:, position] + 1) % CLASSES
    before, after = model(x).array, model(changed).array
    numpy.testing.assert_array_equal(after[:, :, :position], before[:, :, :position])
    for later in range(position, LENGTH):
        assert (after[:, :, later] != before[:, :, later]).any(), later


def test_what_is_said_earlier_counts_by_its_place():
    model, x = build(), characters()
    swapped = x[:, [1, 0, *range(2, LENGTH)]]
    assert (x[:, 0] != x[:, 1]).any()
    assert not numpy.allclose(model(swapped).array[:, :, -1], model(x).array[:, :, -1], atol=1e-7)


@pytest.mark.parametrize('dtype, tolerance', [('float32', 1e-6), ('float16', 2e-3)])
def test_attention_is_the_mean_of_the_values_so_far_by_query_and_key(dtype, tolerance):
    rng = numpy.random.RandomState(0)
    q, k, v = rng.standard_normal((3, 2, 3, 5, 4)).astype(dtype)
    y = attention(*map(chainer.Variable, (q, k, v)))
    assert y.dtype == dtype
    for n, head, last in numpy.ndindex(2, 3, 5):
        so_far = slice(last + 1)
        scores = k[n, head, so_far].astype(float) @ q[n, head, last].astype(float) / 4**0.5
        weights = numpy.exp(scores) / numpy.exp(scores).sum()
        expected = weights @ v[n, head, so_far].astype(float)
        numpy.testing.assert_allclose(y.array[n, head, last], expected, atol=tolerance)


def test_attention_and_linear_layers_are_added_to_what_a_block_is_given():
    block = build().blocks['block1']
    h = numpy.random.RandomState(0).standard_normal((2, LENGTH, 16)).astype(numpy.float32)
    whole = block(h).array
    block.fc2.W.array[...] = 0
    attended = block(h).array
    block.out.W.array[...] = 0
    assert (whole != attended).any() and (attended != h).any()
    numpy.testing.assert_array_equal(block(h).array, h)


def test_a_config_names_it_and_the_data_say_its_length_and_classes():
    section = types.SimpleNamespace(name='transformer', layers=3, units=8, heads=2)
    model = models.build(section, Data(train=None, test=None, shape=(9,), classes=5))
    assert model.blocks['block3'].heads == model.blocks['block1'].heads == 2
    assert model.positions.W.shape == (9, 8)
    assert model(numpy.zeros((2, 9), numpy.int32)).shape == (2, 5, 9)


def test_a_step_with_layer_wise_scaling_reaches_every_layer():
    model = build('mixed16')
    optimizer = chainerlp.AdaptiveLossScaling(optimizers.Adam(), policies.PerSample()).setup(model)
    layers = linear_layers(model)
    assert len(layers) == 2 * 6 + 1
    assert all(isinstance(layer, ScaledLinear) for layer in layers)
    x = characters()
    optimizer.update(lambda: classification.loss(model(x), numpy.roll(x, 1, axis=1)))
    assert optimizer.skipped == 0
    for name, param in model.namedparams():
        assert chainerlp.unscaled_grad(param).any(), name


def learnt(dtype, policy=None):
    """Trains to say what was read one position before; returns the first loss and the last."""
    model = build(dtype)
    optimizer = optimizers.Adam(0.01)
    if policy is not None:
        optimizer = chainerlp.AdaptiveLossScaling(optimizer, policy)
    optimizer.setup(model)
    found = []

    def loss(x):
        found.append(classification.loss(model(x), x[:, [0, *range(LENGTH - 1)]]))
        return found[-1]

    for seed in range(100):
        optimizer.update(loss, characters(16, seed=seed))
    return float(found[0].array), float(found[-1].array)


def test_it_learns_in_mixed16_with_scales_of_each_layer_as_in_float32():
    (first, last), (_, expected) = learnt('mixed16', policies.PerSample()), learnt('float32')
    # Without attention the loss would stay at log(7), but for the first position.
    assert last < 0.1 * first
    assert last == pytest.approx(expected, abs=0.05 * first)
