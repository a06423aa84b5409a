"""Classes that users derive from Chainer's links."""

import copy
import pickle
import warnings

import chainerlp
from chainerlp import policies
from chainerlp.links import ScaledConvolution1D, ScaledLinear, ScaledLink

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
    chainerlp.backward(y)
    return chainerlp.unscaled_grad(x), x._loss_scale


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


@pytest.mark.parametrize(
    'make, method, base',
    [
        (lambda: Clipped(3, 2), 'forward', 'Linear'),
        (lambda: OldStyle(3, 2), '__call__', 'Linear'),
        (lambda: OwnRecurrence(1, 2, 3, 0.0), 'rnn', 'NStepGRU'),
    ],
)
def test_one_that_computes_something_of_its_own_is_left_alone_and_named_once(make, method, base):
    net = chainer.Sequential(make(), make())
    kinds = [type(link) for link in net.links()]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        chainerlp.convert(net, policies.Adaptive())
        chainerlp.convert(net, policies.Adaptive())
    assert [type(link) for link in net.links()] == kinds
    (warning,) = caught
    name = f'{__name__}.{kinds[1].__name__}'
    assert str(warning.message) == (
        f'{name} overrides {method} of chainer.links.{base}: its gradients are not scaled'
    )


def test_what_it_computes_stays_in_force_when_it_is_left_alone():
    link = cast(Clipped(3, 2))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        chainerlp.convert(link, policies.Amax())
    assert numpy.abs(link(100 * half(4, 3)).array).max() <= 1


def test_a_class_derived_from_a_scaled_link_gets_the_policy():
    class Mine(ScaledLinear):
        def forward(self, x):
            return F.relu(super().forward(x))

    link = chainerlp.convert(Mine(3, 2), policies.Amax())
    assert type(link) is Mine and link.layer_scale.policy == policies.Amax()
    assert type(chainerlp.restore(link)) is Mine
