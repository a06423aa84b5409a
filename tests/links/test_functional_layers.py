"""Functions of layers that no scaled link has called: F.linear with a parameter, and the like."""

import copy
import gc
import pickle
import weakref

import chainerlp
from chainerlp import policies
from tests.leaf_scales import leaf_scales

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers


class TiedEmbeddings(chainer.Chain):
    """A language model whose output layer is its embedding."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(7, 5)
            self.hidden = L.Linear(5, 5)

    def forward(self, ids, t):
        h = F.tanh(self.hidden(self.embed(ids)))
        return F.softmax_cross_entropy(F.linear(h, self.embed.W), t)


class Functional(chainer.Chain):
    """Every layer called as a function."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv = chainer.Parameter(chainer.initializers.Normal(0.3), (4, 2, 3, 3))
            self.deconv = chainer.Parameter(chainer.initializers.Normal(0.3), (4, 3, 2, 2))
            self.linear = chainer.Parameter(chainer.initializers.Normal(0.3), (5, 3 * 16))

    def forward(self, x):
        h = F.convolution_2d(x, self.conv, pad=1)
        h = F.deconvolution_2d(h, self.deconv)[:, :, :4, :4]
        return F.linear(h, F.dropout(self.linear, 0.1))


def wrap(model, policy):
    optimizer = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.0), policy, initial_scale=1.0)
    return optimizer.setup(model)


def make(kind, dtype=chainer.mixed16):
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        return kind()


def gradients(model, factor, policy, dtype='e'):
    x = chainer.Variable(numpy.random.RandomState(1).standard_normal((2, 2, 4, 4)).astype(dtype))
    optimizer = wrap(model, policy)
    model.cleargrads()
    numpy.random.seed(2)
    loss = F.sum(F.cast(model(x), 'f')) * factor
    with leaf_scales() as scales:
        optimizer.backward(loss)
    return {**{k: v.grad for k, v in model.namedparams()}, 'x': x.grad}, scales.get(id(x))


@pytest.mark.parametrize('policy', [policies.Amax(), policies.Measured(), policies.Fixed(2.0**6)])
def test_they_are_scaled_as_links_are(policy):
    tiny = 2.0**-23
    found, scale = gradients(make(Functional), tiny, policy)
    expected, _ = gradients(make(Functional, numpy.float32), tiny, policies.Fixed(1), 'f')
    lost, _ = gradients(make(Functional), tiny, policies.Fixed(1))
    assert scale > 1
    for key, exact in expected.items():
        if key != 'x' and not policy.scales_weights:
            continue
        size = numpy.linalg.norm(exact)
        # Some roundings of weights, activations and gradients, 2^-11 each.
        assert numpy.linalg.norm(found[key] - exact) <= 2.0**-5 * size, key
    assert numpy.linalg.norm(lost['x'] - expected['x']) > 0.1 * numpy.linalg.norm(expected['x'])


def test_the_weight_of_an_embedding_that_is_a_layer_too_gets_both_gradients():
    ids, t = numpy.array([0, 1, 2, 2]), numpy.array([1, 2, 3, 4])
    found = []
    for dtype in (chainer.mixed16, numpy.float32):
        model = make(TiedEmbeddings, dtype)
        optimizer = wrap(model, policies.Amax())
        model.cleargrads()
        optimizer.backward(model(ids, t))
        found.append(model.embed.W.grad)
    numpy.testing.assert_allclose(found[0], found[1], rtol=2.0**-6, atol=2.0**-8)


def test_a_scale_is_kept_for_the_interval_for_each_of_them():
    model = make(Functional)
    optimizer = wrap(model, policies.Amax(interval=3))
    x = numpy.random.RandomState(1).standard_normal((2, 2, 4, 4)).astype('e')
    seen = []
    for factor in (1.0, 2.0**-10, 2.0**-10, 2.0**-10):
        x_ = chainer.Variable(x)
        with leaf_scales() as scales:
            optimizer.backward(F.sum(F.cast(model(x_), 'f')) * factor)
        seen.append(scales[id(x_)])
    assert seen[0] == seen[1] == seen[2] < seen[3]


def test_what_was_restored_is_left_alone():
    model = make(lambda: chainer.Sequential(L.Linear(3, 4), L.Linear(4, 2)))
    optimizer = wrap(model, policies.Fixed(8))
    chainerlp.restore(model[0])
    x = chainer.Variable(numpy.ones((2, 3), 'e'))
    with leaf_scales() as scales:
        optimizer.backward(F.sum(model(x)))
    assert scales[id(x)] == 8


def test_an_rnn_that_was_restored_is_left_alone():
    model = make(lambda: chainer.Sequential(L.NStepRNNTanh(1, 3, 3, 0.0)))
    optimizer = wrap(model, policies.Fixed(8))
    chainerlp.restore(model)
    x = chainer.Variable(numpy.ones((2, 3), 'e'))
    _, ys = model[0](None, [x])
    with leaf_scales() as scales:
        optimizer.backward(F.sum(ys[0]))
    assert scales[id(x)] == 1


def test_what_the_owner_of_another_model_restored_is_left_alone():
    model, other = make(lambda: L.Linear(4, 2)), make(lambda: L.Linear(3, 4))
    optimizer = wrap(model, policies.Fixed(8))
    wrap(other, policies.Fixed(2))
    seen = []
    for is_scaled in (False, True):
        if is_scaled:
            chainerlp.convert(other, policies.Fixed(2))
        else:
            chainerlp.restore(other)
        for call in (other, lambda x: F.linear(x, other.W)):
            x = chainer.Variable(numpy.ones((2, 3), 'e'))
            with leaf_scales() as scales:
                optimizer.backward(F.sum(model(call(x))))
            seen.append(scales[id(x)])
    assert seen == [8, 8, 8 * 2, 8 * 8]


def test_the_graph_does_not_outlive_the_backward_pass():
    model = make(TiedEmbeddings)
    optimizer = wrap(model, policies.Amax())
    loss = model(numpy.array([0, 1]), numpy.array([1, 2]))
    function = weakref.ref(loss.creator_node.inputs[0].creator_node)
    optimizer.backward(loss)
    del loss
    gc.collect()
    assert function() is None


@pytest.mark.parametrize(
    'copied', [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))]
)
@pytest.mark.parametrize('is_derived', [False, True])
def test_a_copy_of_the_optimizer_keeps_the_scales(copied, is_derived):
    optimizer = wrap(make(lambda: L.EmbedID(5, 4)), policies.Amax(interval=3))
    foreign = chainer.Parameter(optimizer.target.W.array.copy())
    seen = []
    for factor in (1.0, 2.0**-10):
        x = chainer.Variable(numpy.ones((2, 4), 'e'))
        y = F.linear(x, foreign if is_derived else optimizer.target.W)
        with leaf_scales() as scales:
            optimizer.backward(F.sum(F.cast(y, 'f')) * factor)
        seen.append(scales[id(x)])
        optimizer = copied(optimizer)
    assert seen[0] == seen[1]


def test_by_itself_the_backward_pass_has_no_policy_for_them():
    model = make(Functional)
    x = chainer.Variable(numpy.ones((2, 2, 4, 4), 'e'))
    with leaf_scales() as scales:
        chainerlp.backward(F.sum(model(x)))
    assert scales[id(x)] == 1
