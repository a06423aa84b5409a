"""Classes that users derive from Chainer's links."""

import copy
import pickle
import warnings

import chainerlp
from chainerlp import policies
from chainerlp.links import ScaledConvolution1D, ScaledLinear, ScaledLink
from tests.leaf_scales import leaf_scales

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest


class WithMemory(L.Linear):
    """Keeps forward, adds state and a method."""

    def __init__(self, *args, tag='', **kwargs):
        super().__init__(*args, **kwargs)
        self.tag = tag
        self.add_persistent('seen', 0)

    def doubled(self, x):
        return 2 * self(x)


class Deeper(WithMemory):
    pass


class Strip(L.Convolution1D):
    def __init__(self):
        super().__init__(2, 3, 3)


class WithOwnState(L.Linear):
    """Leaves something out of its pickles."""

    def __init__(self, *args):
        super().__init__(*args)
        self.cache = 1

    def __getstate__(self):
        return {key: value for key, value in vars(self).items() if key != 'cache'}

    def __setstate__(self, state):
        vars(self).update(state, cache=None)


class Encoder(L.NStepLSTM):
    pass


class Clipped(L.Linear):
    """What it computes is its own."""

    def forward(self, x):
        return F.clip(super().forward(x), -1.0, 1.0)


class OldStyle(L.Linear):
    def __call__(self, x):
        return F.linear(x, self.W)


class OwnRecurrence(L.NStepGRU):
    def rnn(self, *args):
        return super().rnn(*args)


def half(*shape):
    return numpy.random.RandomState(0).standard_normal(shape).astype(numpy.float16)


def cast(link):
    for param in link.params():
        param.array = param.array.astype(numpy.float16)
    return link


def gradient(link, x):
    x = chainer.Variable(x)
    y = link(x)
    y.grad = numpy.full(y.shape, 2.0**-24, y.dtype)
    link.cleargrads()
    with leaf_scales() as scales:
        chainerlp.backward(y)
    return x.grad, scales[id(x)]


@pytest.mark.parametrize('kind', [WithMemory, Deeper])
def test_one_that_keeps_forward_is_converted(kind):
    link = cast(kind(3, 2, tag='mine'))
    plain = cast(L.Linear(3, 2))
    plain.copyparams(link, copy_persistent=False)
    chainerlp.convert(link, policies.Amax())
    chainerlp.convert(plain, policies.Amax())
    assert isinstance(link, kind) and isinstance(link, ScaledLink)
    assert link.tag == 'mine' and link.seen == 0
    x = half(4, 3)
    numpy.testing.assert_array_equal(link.doubled(x).array, 2 * plain(x).array)
    expected, scale = gradient(plain, x)
    actual, same_scale = gradient(link, x)
    assert same_scale == scale > 1
    numpy.testing.assert_array_equal(actual, expected)


def test_the_nearest_of_chainers_classes_counts():
    link = chainerlp.convert(Strip(), policies.Adaptive())
    assert isinstance(link, Strip) and isinstance(link, ScaledConvolution1D)


@pytest.mark.parametrize('kind', [WithMemory, Deeper])
def test_restore_gives_back_the_very_class(kind):
    link = kind(3, 2)
    attributes = dict(vars(link))
    chainerlp.convert(link, policies.Adaptive())
    assert chainerlp.restore(link) is link
    assert type(link) is kind
    assert vars(link).keys() == attributes.keys()


def test_an_n_step_rnn_is_converted_with_its_layers():
    link = Encoder(2, 3, 4, 0.0)
    chainerlp.convert(link, policies.Amax())
    assert isinstance(link, Encoder)
    assert all(isinstance(layer, ScaledLink) for layer in link)
    chainerlp.restore(link)
    assert type(link) is Encoder
    assert all(type(layer) is chainer.Link for layer in link)


def test_layers_of_a_class_share_one_scaled_class():
    a, b = (chainerlp.convert(WithMemory(3, 2), policies.Adaptive()) for _ in range(2))
    assert type(a) is type(b)
    assert type(a).__name__ == 'ScaledWithMemory' and type(a).__module__ == __name__


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_can_be_pickled(protocol):
    link = chainerlp.convert(cast(WithMemory(3, 2, tag='mine')), policies.Amax())
    twin = pickle.loads(pickle.dumps(link, protocol))
    assert type(twin) is type(link) and twin.tag == 'mine'
    x = half(4, 3)
    for actual, expected in zip(gradient(twin, x), gradient(link, x)):
        numpy.testing.assert_array_equal(actual, expected)
    assert type(chainerlp.restore(twin)) is WithMemory


def test_what_its_class_says_of_pickling_holds():
    link = chainerlp.convert(WithOwnState(3, 2), policies.Amax())
    twin = pickle.loads(pickle.dumps(link))
    assert isinstance(twin, WithOwnState) and isinstance(twin, ScaledLinear)
    assert twin.cache is None and link.cache == 1
    assert twin.layer_scale.policy == policies.Amax()


def test_it_can_be_copied():
    link = chainerlp.convert(chainer.Sequential(WithMemory(3, 3), F.relu, Strip), policies.Amax())
    twins = [copy.deepcopy(link)[0], link.copy()[0], *link[0].repeat(2)]
    for twin in twins:
        assert type(twin) is type(link[0])
        assert twin.layer_scale is not link[0].layer_scale


def test_converting_again_changes_the_policy_only():
    link = chainerlp.convert(WithMemory(3, 2), policies.Adaptive())
    kind = type(link)
    chainerlp.convert(link, policies.Amax())
    assert type(link) is kind and link.layer_scale.policy == policies.Amax()


class OnSequences(L.Linear):
    """Takes (batch, time, channel), as about half of all public sequence models do."""

    def __call__(self, x):
        batch, time, channels = x.shape
        y = super().__call__(x.reshape(batch * time, channels))
        return y.reshape(batch, time, -1)


class ByName(L.Linear):
    def forward(self, x):
        return 2 * L.Linear.forward(self, x)


class Normalized(L.Convolution2D):
    """Multiplies by something that is made of its weight."""

    def forward(self, x):
        W = self.W / F.broadcast_to(F.sqrt(F.sum(self.W * self.W)), self.W.shape)
        return F.convolution_2d(x, W, self.b, self.stride, self.pad)


CALLED = {
    'super().forward': (Clipped(3, 2), (4, 3)),
    'super().__call__ on sequences': (OnSequences(3, 2), (4, 5, 3)),
    'F.linear in __call__': (OldStyle(3, 2), (4, 3)),
    'the base by its name': (ByName(3, 2), (4, 3)),
    'a normalized weight': (Normalized(3, 2, 3), (2, 3, 5, 5)),
}


@pytest.mark.parametrize('name', sorted(CALLED))
def test_one_that_overrides_how_it_is_called_is_scaled_by_the_optimizer(name):
    link, shape = copy.deepcopy(CALLED[name][0]), CALLED[name][1]
    cast(link)
    x = half(*shape)
    kind, expected = type(link), link(x).array
    optimizer = chainerlp.AdaptiveLossScaling(chainer.optimizers.SGD(0.0), policies.Amax())
    optimizer.setup(link)
    assert isinstance(link, kind)
    # The products are accumulated in float32: one rounding of each may differ.
    numpy.testing.assert_allclose(link(x).array, expected, rtol=2.0**-9, atol=2.0**-10)

    x = chainer.Variable(x)
    y = link(x)
    y.grad = numpy.full(y.shape, 2.0**-24, y.dtype)
    optimizer.target.cleargrads()
    with leaf_scales() as scales, warnings.catch_warnings():
        warnings.simplefilter('error')
        optimizer.backward(y)
    assert scales[id(x)] > 2**8 or numpy.abs(y.array).max() == 1  # F.clip passes nothing there
    assert numpy.isfinite(x.grad).all()


def test_a_stacked_rnn_that_overrides_its_recurrence_is_scaled():
    net = chainerlp.convert(OwnRecurrence(1, 3, 4, 0.0), policies.Amax())
    assert isinstance(net, OwnRecurrence) and all(isinstance(link, ScaledLink) for link in net)


def test_what_it_computes_stays_in_force():
    link = chainerlp.convert(cast(Clipped(3, 2)), policies.Amax())
    assert numpy.abs(link(100 * half(4, 3)).array).max() <= 1


def test_a_class_derived_from_a_scaled_link_gets_the_policy():
    class Mine(ScaledLinear):
        def forward(self, x):
            return F.relu(super().forward(x))

    link = chainerlp.convert(Mine(3, 2), policies.Amax())
    assert type(link) is Mine and link.layer_scale.policy == policies.Amax()
    assert type(chainerlp.restore(link)) is Mine
