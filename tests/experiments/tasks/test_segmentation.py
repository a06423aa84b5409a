from experiments.tasks.segmentation import TrainChain

import chainer
import numpy
import pytest
from chainer import functions

LOGITS = numpy.array([[[[1, 0, 2]], [[0, 0, -1]]]], numpy.float32)  # one image of 1x3, two classes


def identity():
    return chainer.Sequential(functions.identity)


def test_void_pixels_do_not_count_and_classes_count_by_their_weights():
    # The first pixel is of class 0, with log(1 + e^-1), the second of class 1, with log 2; the
    # third is void. Weights 1 and 3; divided by two pixels.
    chain = TrainChain(identity(), numpy.array([1, 3], numpy.float32))
    loss = chain(LOGITS, numpy.array([[[0, 1, -1]]], numpy.int32))
    expected = (numpy.log1p(numpy.exp(-1)) + 3 * numpy.log(2)) / 2
    assert loss.array == pytest.approx(expected)


def test_without_weights_all_classes_count_the_same():
    loss = TrainChain(identity())(LOGITS, numpy.array([[[0, 1, -1]]], numpy.int32))
    expected = (numpy.log1p(numpy.exp(-1)) + numpy.log(2)) / 2
    assert loss.array == pytest.approx(expected)


def test_of_float16_logits_the_loss_is_float32_and_void_gets_no_gradient():
    logits = chainer.Variable(LOGITS.astype(numpy.float16))
    loss = TrainChain(identity())(logits, numpy.array([[[0, 1, -1]]], numpy.int32))
    loss.backward()
    assert loss.dtype == numpy.float32 and logits.grad.dtype == numpy.float16
    assert logits.grad.any(axis=1).tolist() == [[[True, True, False]]]


def test_the_loss_is_reported_and_the_weights_are_in_no_snapshot():
    chain = TrainChain(identity(), numpy.array([1.0, 2.0]))
    reporter = chainer.Reporter()
    reporter.add_observer('main', chain)
    observation = {}
    with reporter.scope(observation):
        loss = chain(LOGITS, numpy.array([[[0, 1, -1]]], numpy.int32))
    assert list(observation) == ['main/loss']
    assert observation['main/loss'].array == loss.array
    snapshot = chainer.serializers.DictionarySerializer()
    chain.serialize(snapshot)
    assert snapshot.target == {}
