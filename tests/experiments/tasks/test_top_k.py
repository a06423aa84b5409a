from experiments.tasks import classification
from experiments.tasks.top_k import TopFiveEvaluator, top_k_accuracy

import chainer
import numpy
import pytest
from chainer import functions, links

# The classes by decreasing logit: 2, 0, 3, 1 and 1, 3, 0, 2.
LOGITS = numpy.array([[3, 1, 4, 2], [2, 4, 1, 3]], numpy.float32)


@pytest.mark.parametrize('k, share', [(1, 0.5), (2, 0.5), (3, 1.0)])
def test_the_accuracies_of_a_case_worked_out_by_hand(k, share):
    # Class 2 is the first image's likeliest, class 0 the second's third.
    assert top_k_accuracy(LOGITS, numpy.array([2, 0]), k) == share


def test_top_1_is_chainers_accuracy_even_where_float16_makes_logits_equal():
    rng = numpy.random.RandomState(0)
    logits = rng.randint(0, 4, (1000, 10)).astype(numpy.float16)
    classes = rng.randint(0, 10, 1000)
    expected = functions.accuracy(logits.astype('f'), classes).array
    assert top_k_accuracy(logits, classes, 1) == pytest.approx(float(expected))


def test_of_equal_logits_only_k_are_among_the_top_k():
    logits = numpy.zeros((10, 10), numpy.float16)
    assert top_k_accuracy(logits, numpy.arange(10), 5) == 0.5


def test_a_network_that_diverged_is_never_right():
    logits = numpy.full((4, 10), numpy.nan, numpy.float32)
    assert top_k_accuracy(logits, numpy.zeros(4, int), 5) == 0


@pytest.mark.parametrize('k', [0, 4])
def test_it_takes_more_than_k_classes(k):
    with pytest.raises(ValueError, match=f'top {k} of 4 classes'):
        top_k_accuracy(LOGITS, numpy.array([2, 0]), k)


def test_the_evaluator_counts_each_example_of_a_data_set_once():
    # An image's logits are its features. Seven images of class 0; the first three have it first,
    # the next two second, the last two last.
    ranks = numpy.array([0, 0, 0, 1, 1, 9, 9])
    logits = -numpy.ones((7, 10), numpy.float32)
    logits[:, 0] = 0
    for row, rank in zip(logits, ranks):
        row[1 : 1 + rank] = 1
    data = chainer.datasets.TupleDataset(logits, numpy.zeros(7, numpy.int32))
    iterator = chainer.iterators.SerialIterator(data, 4, repeat=False, shuffle=False)
    classifier = links.Classifier(
        chainer.Sequential(functions.identity), classification.loss, classification.accuracy
    )
    evaluator = TopFiveEvaluator(iterator, classifier)
    evaluator.name = 'validation'
    means = evaluator()
    assert set(means) == {f'validation/main/{key}' for key in ('loss', 'accuracy', 'accuracy_top5')}
    assert means['validation/main/accuracy'] == pytest.approx(3 / 7)
    assert means['validation/main/accuracy_top5'] == pytest.approx(5 / 7)
