"""A model that was run, converted and changed comes back exactly as it was."""

import contextlib
import random

import chainerlp
from chainerlp import policies
from chainerlp.model_state import preserved

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest


class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(None, 4, 3)
            self.norm = L.BatchNormalization(4)
            self.own = chainer.Parameter(numpy.ones(4, 'f'))
            self.fc = L.Linear(None, 3)
        self.buffer = numpy.zeros(2)
        self.history = []
        self.add_persistent('count', 0)

    def forward(self, x):
        h = F.dropout(F.relu(self.norm(self.conv(x)))) * self.own[None, :, None, None]
        self.buffer += 1
        self.history.append(random.random())
        self.count += 1
        self.last = self.fc(h)
        return self.last


def everything(model):
    """All that can be seen of a model, with the identities of its arrays."""
    seen = []
    for path, link in sorted(model.namedlinks()):
        seen.append((path, type(link), sorted(vars(link))))
        for name, value in sorted(vars(link).items()):
            content = value.tobytes() if isinstance(value, numpy.ndarray) else repr(value)
            seen.append((path, name, id(value), content))
    for path, param in sorted(model.namedparams()):
        seen.append((path, id(param), sorted(vars(param)), param._loss_scale))
        for array in (param.array, param._grad):
            seen.append((id(array), None if array is None else array.tobytes()))
        seen.append((param.is_initialized, param.node.dtype if param.is_initialized else None))
    return seen


def run(model, x):
    chainerlp.convert(model, policies.Amax())
    model.cleargrads()
    loss = F.sum(model(x))
    chainerlp.backward(loss)
    model.fc.W.array[...] = 7
    model.new_attribute = 1


@pytest.fixture(params=['fresh', 'used', 'converted'])
def model(request):
    model = Net()
    x = numpy.random.standard_normal((2, 3, 8, 8)).astype('f')
    if request.param == 'converted':
        chainerlp.convert(model, policies.Adaptive())
    if request.param != 'fresh':
        F.sum(model(x)).backward()
    return model


def test_everything_in_the_model_comes_back(model):
    x = numpy.random.standard_normal((2, 3, 8, 8)).astype('f')
    before = everything(model)
    with preserved(model):
        run(model, x)
        assert everything(model) != before
    assert everything(model) == before


def test_it_comes_back_after_an_error_too(model):
    x = numpy.random.standard_normal((2, 3, 8, 8)).astype('f')
    before = everything(model)
    with contextlib.suppress(ZeroDivisionError), preserved(model):
        run(model, x)
        raise ZeroDivisionError
    assert everything(model) == before


def test_the_random_generators_go_on_as_if_nothing_had_been():
    model = Net()
    numpy.random.seed(3)
    random.seed(3)
    expected = numpy.random.rand(), random.random()
    numpy.random.seed(3)
    random.seed(3)
    with preserved(model):
        run(model, numpy.zeros((2, 3, 8, 8), 'f'))
    assert (numpy.random.rand(), random.random()) == expected


def test_what_is_reported_stays_unheard():
    model = L.Classifier(Net())
    reporter = chainer.Reporter()
    reporter.add_observer('main', model)
    with reporter.scope({}):
        with preserved(model):
            model(numpy.zeros((2, 3, 8, 8), 'f'), numpy.zeros(2, 'i'))
        assert reporter.observation == {}
        model(numpy.zeros((2, 3, 8, 8), 'f'), numpy.zeros(2, 'i'))
        assert 'main/loss' in reporter.observation


def test_an_uninitialized_model_can_be_initialized_differently_afterwards():
    model = Net()
    with preserved(model):
        model(numpy.zeros((2, 3, 8, 8), 'f'))
        assert model.conv.W.shape == (4, 3, 3, 3)
    assert not model.conv.W.is_initialized
    model(numpy.zeros((2, 5, 6, 6), 'f'))
    assert model.conv.W.shape == (4, 5, 3, 3)


def test_read_only_arrays_are_no_matter():
    model = Net()
    model.table = numpy.broadcast_to(numpy.float32(1), (3,))
    with preserved(model):
        pass
    assert model.table.tolist() == [1, 1, 1]
