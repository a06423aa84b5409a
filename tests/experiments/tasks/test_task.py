"""Evaluators of a whole data set: keys, values worked out by hand, many workers."""

import csv
import dataclasses
import json
import pathlib
import types

from experiments import tasks
from experiments.config.model import MLP
from experiments.models.ssd_boxes import Grid, default_boxes
from experiments.tasks import classification, detection, segmentation
from experiments.tasks.detection import DetectionEvaluator
from experiments.tasks.segmentation import SegmentationEvaluator

import chainer
import numpy
import pytest
from chainer import functions, links, training

PROGRAM = pathlib.Path(__file__).parent / 'evaluators_program.py'
# Around (16, 16) and (48, 16), and so on: four boxes of 32x32 (and each once more).
DEFAULTS = default_boxes([Grid(2, 32, 32.0, 32.0, ())])
CELLS = numpy.array([[0, 0, 32, 32], [0, 32, 32, 64], [32, 0, 64, 32], [32, 32, 64, 64]], 'f')


class Detector(chainer.Chain):
    """Gives what was decided before: an image is the number of its logits."""

    size = 64
    default_boxes = DEFAULTS

    def __init__(self, probabilities):
        super().__init__()
        self._logits = numpy.log(numpy.array(probabilities, numpy.float32))

    def forward(self, images):
        logits = self._logits[images.astype(int).ravel()]
        locs = numpy.zeros((len(images), 8, 4), numpy.float32)
        return chainer.Variable(locs), chainer.Variable(numpy.repeat(logits, 2, axis=1))


def evaluate(evaluator):
    evaluator.name = 'validation'
    with chainer.using_config('train', True):
        values = evaluator()
    return {key.replace('validation/main/', ''): float(value) for key, value in values.items()}


def batches(data, size=2):
    return chainer.iterators.SerialIterator(data, size, repeat=False, shuffle=False)


def example(number, cells, labels, difficult):
    image = numpy.full((1,), number, numpy.float32)
    labels = numpy.array(labels, numpy.int32)
    return image, CELLS[cells], labels, numpy.array(difficult, bool)


# (background, a, b) in each of the four cells of three images.
NOTHING = [0.998, 0.001, 0.001]
PROBABILITIES = [
    [[0.1, 0.9, 0], NOTHING, NOTHING, [0.4, 0, 0.6]],
    [NOTHING, [0.2, 0.8, 0], NOTHING, NOTHING],
    [[0.3, 0.7, 0], NOTHING, NOTHING, NOTHING],
]
PROBABILITIES = numpy.maximum(PROBABILITIES, 1e-6)
DATA = [
    example(0, [0, 3], [0, 1], [False, False]),
    example(1, [1, 2], [0, 0], [True, False]),
    example(2, [1], [0], [False]),
]


@pytest.mark.parametrize('eleven_point', [True, False])
def test_the_average_precisions_of_a_data_set_worked_out_by_hand(eleven_point):
    # Class a: 0.9 is right, 0.8 belongs to a difficult object and does not count, 0.7 is wrong; of
    # the three objects that count one is found. Precision 1 up to a recall of 1/3, then nothing.
    # Class b: its one object is found.
    target = detection.TrainChain(Detector(PROBABILITIES))
    evaluator = DetectionEvaluator(batches(DATA), target, ['a', 'b', 'c'], eleven_point)
    values = evaluate(evaluator)
    of_a = 4 / 11 if eleven_point else 1 / 3  # recalls of 0, 0.1, 0.2 and 0.3
    assert values['ap/a'] == pytest.approx(of_a)
    assert values['ap/b'] == pytest.approx(1)
    assert values['map'] == pytest.approx((of_a + 1) / 2)
    # Of class c there are no objects.
    assert set(values) == {'ap/a', 'ap/b', 'map', 'loss', 'loss/loc', 'loss/conf'}


def test_the_loss_is_that_of_training():
    # One image: matched are the boxes of cells 0 and 3, two each, exactly: no location loss, and
    # -log(0.9) and -log(0.6), twice. All four others are negatives, of -log(0.998).
    target = detection.TrainChain(Detector(PROBABILITIES))
    values = evaluate(DetectionEvaluator(batches(DATA[:1]), target, ['a', 'b']))
    expected = -2 * numpy.log(0.9) - 2 * numpy.log(0.6) - 4 * numpy.log(0.998)
    assert values['loss/loc'] == 0
    assert values['loss/conf'] == values['loss'] == pytest.approx(expected / 4, rel=1e-4)


def test_examples_that_do_not_say_what_is_difficult_have_nothing_difficult():
    target = detection.TrainChain(Detector(PROBABILITIES))
    values = evaluate(DetectionEvaluator(batches([item[:3] for item in DATA]), target, ['a', 'b']))
    # 0.9 and 0.8 are right, of four objects.
    assert values['ap/a'] == pytest.approx(2 / 4)


class Segmenter(chainer.Chain):
    def forward(self, images):
        assert not chainer.config.train
        return chainer.Variable(images)


def test_the_confusion_is_pooled_over_the_data_set():
    # Three images of 2x2, all taken for class 0. Truth: all 0; two pixels of class 1 and two void;
    # three of 0 and one of 1. Of 7 pixels of class 0 7 are right, of 3 of class 1 none: the
    # intersections over unions are 7 / 10 and 0. The mean over batches or images would be another.
    logits = numpy.zeros((2, 2, 2), numpy.float32)
    logits[0] = 1
    labels = [[[0, 0], [0, 0]], [[1, 1], [-1, -1]], [[0, 0], [0, 1]]]
    data = [(logits, numpy.array(item, numpy.int32)) for item in labels]
    target = segmentation.TrainChain(Segmenter())
    values = evaluate(SegmentationEvaluator(batches(data), target, ['a', 'b']))
    assert values.pop('loss') > 0
    assert values == pytest.approx(
        {'iou/a': 0.7, 'iou/b': 0, 'miou': 0.35, 'pixel_accuracy': 0.7, 'class_accuracy': 0.5}
    )


def test_top_5_counts_each_example_of_a_data_set_once():
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
    evaluator = classification.evaluator(iterator, classifier, types.SimpleNamespace(classes=100))
    evaluator.name = 'validation'
    means = evaluator()
    assert set(means) == {f'validation/main/{key}' for key in ('loss', 'accuracy', 'accuracy_top5')}
    assert means['validation/main/accuracy'] == pytest.approx(3 / 7)
    assert means['validation/main/accuracy_top5'] == pytest.approx(5 / 7)


def test_evaluating_twice_gives_the_same():
    target = detection.TrainChain(Detector(PROBABILITIES))
    evaluator = DetectionEvaluator(batches(DATA), target, ['a', 'b'])
    assert evaluate(evaluator) == evaluate(evaluator)


@pytest.mark.mpi
@pytest.mark.parametrize('workers', [1, 2, 3])
def test_many_workers_report_the_metrics_of_all_their_data(mpiexec, workers):
    done = mpiexec(workers, str(PROGRAM))
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    for name, metric in [('detection', 'main/map'), ('segmentation', 'main/miou')]:
        together, alone = results[name]['together'], results[name]['alone']
        assert len(together) == workers and all(item == together[0] for item in together)
        assert set(together[0]) == set(alone)
        assert 0 < alone[metric] < 1
        for key, value in alone.items():
            if 'loss' not in key:
                assert together[0][key] == pytest.approx(value), key


class Quarter(training.Extension):
    """Reports a quarter, and no loss."""

    name = 'validation'
    priority = training.PRIORITY_WRITER

    def __call__(self, trainer):
        chainer.report({'validation/main/share': 0.25})


@pytest.fixture
def other_task(monkeypatch):
    task = dataclasses.replace(
        tasks.get('classification'),
        metric='share',
        title='share',
        evaluator=lambda *_, **__: Quarter(),
    )
    monkeypatch.setattr(tasks, 'get', lambda name: task)


def test_results_have_the_name_of_the_tasks_metric(cli, tiny, tmp_path, other_task):
    code, out, err = cli('sweep', tiny)
    assert code == 0
    assert out.split()[:4] == ['method', 'runs', 'share', 'loss']
    assert err.splitlines()[0].startswith('[1/2] fp32-seed=0: share 25.00%, loss ')
    folder = tmp_path / 'out' / 'tiny'
    with open(folder / 'summary.csv', newline='') as file:
        assert [row['share'] for row in csv.DictReader(file)] == ['0.25', '0.25']
    result = json.loads((folder / 'fp32-seed=0' / 'result.json').read_text())
    assert (result['metric'], result['share']) == ('share', 0.25)


def test_without_a_loss_on_the_test_set_the_trainings_counts(cli, tiny, tmp_path, other_task):
    cli('train', tiny)
    folder = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0'
    log = json.loads((folder / 'log').read_text())
    assert json.loads((folder / 'result.json').read_text())['loss'] == log[-1]['main/loss']


def test_a_model_for_another_task_is_one_line(cli, tiny, monkeypatch):
    monkeypatch.setattr(MLP, 'task', 'detection')
    code, _, err = cli('train', tiny)
    assert code == 2 and err == (
        f'{tiny}: model: given {{name: mlp, layers: 3, units: 16}}, allowed: a model for'
        ' classification, as digits is (mlp is for detection)\n'
    )
