"""Conversion changes a model's classes and nothing that can be seen from outside."""

import copy
import pickle

import chainerlp
from chainerlp import policies
from chainerlp.links import ScaledConvolution2D, ScaledLinear
from tests.leaf_scales import leaf_scales

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import serializers


class Net(chainer.Chain):
    """All that a Convolution2D and a Linear can be asked for, in one small model."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(3, 8, 3, stride=2, pad=1)
            self.grouped = L.Convolution2D(8, 8, 3, pad=2, dilate=2, groups=4, nobias=True)
            self.norm = L.BatchNormalization(8)
            self.lazy = L.Linear(None, 16)
            self.blocks = chainer.ChainList(L.Linear(16, 16, nobias=True), L.Linear(16, 16))
            self.out = L.Linear(16, 5)

    def forward(self, x):
        h = F.relu(self.norm(self.grouped(F.relu(self.conv(x)))))
        h = F.relu(self.lazy(h))
        for block in self.blocks:
            h = h + F.relu(block(h))
        return self.out(h)


def make_net(seed=0):
    numpy.random.seed(seed)
    net = Net()
    net(batch())
    return net


def batch():
    return numpy.random.RandomState(1).standard_normal((4, 3, 8, 8)).astype('f')


def gradients(net):
    loss = F.mean(F.square(net(batch())))
    net.cleargrads()
    loss.backward()
    return {path: param.grad for path, param in net.namedparams()}


def state(net):
    return {path: param.array for path, param in net.namedparams()}


def assert_equal_dicts(actual, expected):
    assert actual.keys() == expected.keys()
    for key in expected:
        numpy.testing.assert_array_equal(actual[key], expected[key])


def test_a_converted_model_gives_the_same_gradients_bit_for_bit_under_plain_backward():
    plain, converted = make_net(), chainerlp.convert(make_net(), policies.Adaptive())
    assert isinstance(converted.conv, ScaledConvolution2D)
    assert isinstance(converted.blocks[0], ScaledLinear)
    assert_equal_dicts(gradients(converted), gradients(plain))


def test_a_converted_model_gives_the_same_gradients_in_float32_under_scaled_backward():
    plain, converted = make_net(), chainerlp.convert(make_net(), policies.Amax())
    loss = F.mean(F.square(converted(batch())))
    converted.cleargrads()
    chainerlp.backward(loss)
    actual = {path: param.grad for path, param in converted.namedparams()}
    assert_equal_dicts(actual, gradients(plain))


def test_restore_leaves_everything_as_it_was():
    net = make_net()
    before = {path: (type(link), dict(vars(link))) for path, link in net.namedlinks()}
    values = {path: array.copy() for path, array in state(net).items()}
    chainerlp.restore(chainerlp.convert(net, policies.Adaptive()))
    for path, link in net.namedlinks():
        kind, attributes = before[path]
        assert type(link) is kind
        assert vars(link).keys() == attributes.keys()
        assert all(vars(link)[name] is attributes[name] for name in attributes)
    assert_equal_dicts(state(net), values)


def test_conversion_keeps_paths_parameters_and_hooks():
    net = make_net()
    params = dict(net.namedparams())
    chainerlp.convert(net, policies.Adaptive())
    assert dict(net.namedparams()) == params
    assert [path for path, _ in net.namedlinks()] == [path for path, _ in make_net().namedlinks()]


@pytest.mark.parametrize('converted_saves', [True, False])
def test_a_snapshot_of_either_loads_into_the_other(tmp_path, converted_saves):
    source, target = make_net(0), make_net(1)
    chainerlp.convert(source if converted_saves else target, policies.Adaptive())
    serializers.save_npz(tmp_path / 'net.npz', source)
    serializers.load_npz(tmp_path / 'net.npz', target)
    assert_equal_dicts(state(target), state(source))
    assert target.norm.N == source.norm.N


def test_a_link_may_be_converted_before_its_input_size_is_known():
    net = Net()
    chainerlp.convert(net, policies.Adaptive())
    assert net.lazy.W.array is None
    assert net(batch()).shape == (4, 5)
    convolution = chainerlp.convert(L.Convolution2D(None, 4, 3), policies.Adaptive())
    assert convolution(batch()).shape == (4, 4, 6, 6)


def test_a_link_alone_is_converted():
    layer = L.Linear(3, 2)
    assert chainerlp.convert(layer, policies.Adaptive()) is layer
    assert type(layer) is ScaledLinear
    assert type(chainerlp.restore(layer)) is L.Linear


def test_converting_again_changes_the_policy_only():
    net = chainerlp.convert(make_net(), policies.Adaptive())
    chainerlp.convert(net, policies.Fixed(4))
    assert net.conv.layer_scale.policy == policies.Fixed(4)
    assert type(chainerlp.restore(net).conv) is L.Convolution2D


def test_a_layer_may_have_a_policy_of_its_own():
    net = chainerlp.convert(make_net(), policies.Adaptive())
    chainerlp.convert(net.out, policies.Amax())
    assert net.out.layer_scale.policy == policies.Amax()
    assert net.conv.layer_scale.policy == policies.Adaptive()


def test_what_multiplies_by_no_weight_is_left_alone():
    net = chainer.Sequential(L.BatchNormalization(3), L.EmbedID(4, 3), L.Scale(W_shape=(3,)))
    kinds = [type(link) for link in net]
    chainerlp.convert(net, policies.Adaptive())
    assert [type(link) for link in net] == kinds


class Doubling(chainer.Function):
    """A function of the old style."""

    def forward(self, inputs):
        return (2 * inputs[0],)

    def backward(self, inputs, grad_outputs):
        return (2 * grad_outputs[0],)


class OwnProduct(chainer.Chain):
    """Multiplies by a parameter of its own, between two layers."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.below = L.Linear(3, 4)
            self.W = chainer.Parameter(numpy.eye(4, dtype='f') * 2)
            self.above = L.Linear(4, 2)

    def forward(self, x):
        return self.above(F.linear(self.below(x), self.W))


def half_gradients(net, in_size):
    """Returns true gradients of a net in float16, where without scaling there are none left."""
    for i, param in enumerate(sorted(net.params(), key=lambda param: param.name)):
        values = numpy.random.RandomState(i).standard_normal(param.shape) * 2.0**-8
        param.array = values.astype('e')
    x = chainer.Variable(numpy.random.RandomState(9).standard_normal((4, in_size)).astype('e'))
    y = net(x)
    y.grad = numpy.full(y.shape, 2.0**-24, 'e')
    net.cleargrads()
    with leaf_scales() as scales:
        chainerlp.backward(y)
    return x, x.grad, scales[id(x)]


def test_a_function_of_the_old_style_passes_scales_through():
    net = chainer.Sequential(L.Linear(3, 4), L.Linear(4, 2))
    old = chainer.Sequential(net[0], lambda x: Doubling()(x), net[1])
    chainerlp.convert(old, policies.Amax())
    _, plain, _ = half_gradients(net, 3)
    x, doubled, scale = half_gradients(old, 3)
    assert scale > 2**8 and numpy.abs(plain).min() > 0
    # Scales are powers of two, and so are the factors between both: rounding is the same.
    numpy.testing.assert_array_equal(doubled, 2 * plain)


def test_a_products_function_that_no_link_calls_is_left_alone():
    net = chainerlp.convert(OwnProduct(), policies.Amax())
    x, gx, _ = half_gradients(net, 3)
    product = net(x.array).creator_node.inputs[0].creator_node
    assert type(product) is chainer.functions.connection.linear.LinearFunction
    assert net.above.layer_scale._held and net.below.layer_scale._held
    assert numpy.abs(gx).min() > 0


def test_layers_in_every_container_are_converted():
    blocks = L.Linear(3, 3).repeat(2)
    net = chainer.ChainList(blocks, chainer.Sequential(L.Linear(3, 3), F.relu), L.Linear(3, 3))
    chainerlp.convert(net, policies.Adaptive())
    layers = [blocks[0], blocks[1], net[1][0], net[2]]
    assert {type(layer) for layer in layers} == {ScaledLinear}
    assert len({id(layer.layer_scale) for layer in layers}) == 4


def test_scaled_links_can_be_made_directly():
    layer = ScaledLinear(3, 2, policy=policies.Measured())
    assert layer.layer_scale.policy == policies.Measured()
    assert layer(numpy.ones((1, 3), 'f')).shape == (1, 2)
    assert ScaledConvolution2D(3, 2, 3).layer_scale.policy == policies.Adaptive()


@pytest.mark.parametrize('mode', ['share', 'copy', 'init'])
def test_a_copied_link_keeps_scales_of_its_own(mode):
    layer = ScaledLinear(3, 2, policy=policies.Amax())
    copied = layer.copy(mode)
    assert copied.layer_scale is not layer.layer_scale
    assert copied.layer_scale.policy == policies.Amax()
    repeated = layer.repeat(2, mode='init')
    assert repeated[0].layer_scale is not repeated[1].layer_scale


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_converted_model_can_be_deep_copied_and_pickled(duplicate):
    net = chainerlp.convert(make_net(), policies.Amax())
    twin = duplicate(net)
    assert_equal_dicts(gradients(twin), gradients(net))
    assert twin.conv.layer_scale is not net.conv.layer_scale


def test_what_is_no_link_is_an_error():
    with pytest.raises(TypeError, match='a chainer.Link is converted and restored, not list'):
        chainerlp.convert([], policies.Adaptive())
    with pytest.raises(TypeError, match='a chainer.Link is converted and restored, not dict'):
        chainerlp.restore({})


def test_what_is_no_policy_is_an_error():
    with pytest.raises(
        TypeError, match="policy must be one of chainerlp.policies.* not 'adaptive'"
    ):
        chainerlp.convert(L.Linear(2, 2), 'adaptive')
    with pytest.raises(TypeError, match='policy must be one of chainerlp.policies.* not <class'):
        chainerlp.convert(L.Linear(2, 2), policies.Adaptive)
