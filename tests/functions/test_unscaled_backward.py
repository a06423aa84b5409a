"""What Chainer would add up or multiply in float16 on the way back is as in float64, rounded."""

import chainerlp

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest


@pytest.mark.parametrize('ignore', [None, 3])
def test_the_rows_of_an_embedding_are_added_up_in_float32(ignore):
    ids = numpy.random.RandomState(0).randint(0, 8, 20000).astype('i')
    results = []
    for dtype in ('e', 'd'):
        with chainer.using_config('dtype', numpy.dtype(dtype)):
            embed = L.EmbedID(8, 3, ignore_label=ignore)
        embed.cleargrads()
        y = embed(ids)
        y.grad = numpy.random.RandomState(1).uniform(0, 1, y.shape).astype('e').astype(dtype)
        chainerlp.backward(y, initial_scale=0.5)
        results.append(embed.W.grad)
    # About 2500 additions a row.
    numpy.testing.assert_allclose(results[0], results[1], rtol=5000 * 2.0**-24)


@pytest.mark.parametrize('negative', [False, True])
def test_ids_of_an_embedding_may_come_in_a_variable_and_be_counted_from_the_end(negative):
    ids = numpy.array([1, 7, 7, 0, 1], 'i')
    with chainer.using_config('dtype', numpy.dtype('e')):
        embed = L.EmbedID(8, 3)
    embed.cleargrads()
    gy = numpy.random.RandomState(1).uniform(0, 1, (5, 3)).astype('e')
    y = embed(chainer.Variable(ids - 8 * (ids > 4) if negative else ids))
    y.grad = gy
    chainerlp.backward(y)
    expected = numpy.zeros((8, 3))
    numpy.add.at(expected, ids, gy)
    numpy.testing.assert_allclose(embed.W.grad, expected, rtol=5 * 2.0**-24)


@pytest.mark.parametrize('behind', [False, True], ids=['leaf', 'behind a function'])
@pytest.mark.parametrize(
    'apply',
    [
        lambda x, p: x + F.broadcast_to(p, x.shape),
        lambda x, p: x + p,
        lambda x, p: p + x,
        lambda x, p: F.bias(x, p[0, :, 0, 0]),
        lambda x, p: F.scale(x, p[0, :, 0, 0]),
    ],
    ids=['broadcast_to', 'x + p', 'p + x', 'bias', 'scale'],
)
def test_the_gradient_of_what_is_broadcast_is_summed_up_in_float32_and_fits(apply, behind):
    p = chainer.Parameter(numpy.ones((1, 3, 1, 1), 'e'))
    p.cleargrad()
    x = numpy.ones((8, 3, 16, 16), 'e')
    y = apply(x, p * 1 if behind else p)
    y.grad = gy = numpy.random.RandomState(0).uniform(100, 200, x.shape).astype('e')
    chainerlp.backward(y)
    expected = gy.astype('d').sum(axis=(0, 2, 3), keepdims=True)
    assert (expected > 1e5).all()
    # 2,048 additions in float32, and two roundings to float16 on the way through a function.
    numpy.testing.assert_allclose(p.grad, expected, rtol=2.0**-10)


def test_an_embedding_of_no_ids_has_no_gradient():
    with chainer.using_config('dtype', numpy.dtype('e')):
        embed = L.EmbedID(8, 3)
    embed.cleargrads()
    chainerlp.backward(F.sum(embed(numpy.zeros((0,), 'i'))))
    assert not embed.W.grad.any()


def test_layer_normalization_of_small_embeddings_does_not_overflow():
    # 1 / std³ is 1.25e5; in between, Chainer's backward forms it in float16.
    x = numpy.random.RandomState(0).normal(0, 0.02, (6, 16)).astype('e')
    gy = numpy.random.RandomState(1).standard_normal((6, 16)).astype('e') * numpy.float16(500)
    results = []
    for dtype in ('e', 'd'):
        with chainer.using_config('dtype', numpy.dtype(dtype)):
            norm = L.LayerNormalization(16)
        norm.cleargrads()
        leaf = chainer.Variable(x.astype(dtype))
        y = norm(leaf * 1)  # so that the gradient is rounded to float16 once
        y.grad = gy.astype(dtype)
        chainerlp.backward(y)
        results.append([leaf.grad, norm.gamma.grad, norm.beta.grad])
    for actual, expected in zip(*results):
        error = numpy.abs(actual - expected).max()
        # The statistics of float16 inputs in float32, and one rounding.
        assert error <= 2.0**-10 * numpy.abs(expected).max()
