import time

import chainerlp
from experiments.data.batches import Batches
from experiments.run.log import THROUGHPUT_KEYS, Log, SkippedUpdates, Throughput

import chainer
import numpy
import pytest
from chainer import training
from chainer.training import extensions


class SlowData(chainer.dataset.DatasetMixin):
    """Examples that take so many seconds each."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __len__(self):
        return 8

    def get_example(self, i):
        time.sleep(self.seconds)
        return numpy.ones(3, numpy.float32)


class SlowModel(chainer.Chain):
    """A model whose batches take so many seconds each."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds
        with self.init_scope():
            self.layer = chainer.links.Linear(3, 1)

    def forward(self, x):
        time.sleep(self.seconds)
        return chainer.functions.sum(self.layer(x))


@pytest.fixture
def train(tmp_path):
    """Trains on four batches of four; returns the log, an entry for every two."""

    def run(dataset, model, evaluation=0.0, **loading):
        batches = Batches(dataset, 4, **loading)
        optimizer = chainer.optimizers.SGD().setup(model)
        updater = training.updaters.StandardUpdater(batches, optimizer)
        trainer = training.Trainer(updater, (4, 'iteration'), str(tmp_path))
        trainer.extend(Throughput(batches, (2, 'iteration')))
        trainer.extend(lambda _: time.sleep(evaluation), name='evaluation')
        trainer.extend(extensions.LogReport(trigger=(2, 'iteration')))
        trainer.run()
        return trainer.get_extension('LogReport').log

    return run


def test_slow_data_is_waited_for(train):
    log = train(SlowData(0.01), SlowModel(0.0))
    assert len(log) == 2
    for entry in log:
        # A sleep is never shorter than asked for: 4 examples are 40 ms or more.
        assert 0 < entry['data/images_per_sec'] <= 1 / 0.01
        assert 0.5 < entry['data/wait'] <= 1


def test_a_slow_model_is_not(train):
    log = train(SlowData(0.0), SlowModel(0.1), workers=1, pool='threads')
    for entry in log:
        assert 0 < entry['data/images_per_sec'] <= 4 / 0.1
        assert 0 <= entry['data/wait'] < 0.5


def test_evaluating_is_not_part_of_it(train):
    log = train(SlowData(0.01), SlowModel(0.0), evaluation=0.2)
    for entry in log:
        # Two batches: 80 ms of data, 400 ms of evaluation, which would leave 20 images a second
        # and a fifth of waiting.
        assert entry['data/images_per_sec'] > 4 / 0.2
        assert entry['data/wait'] > 0.5


def test_what_depends_on_the_machine_has_keys_of_its_own(train):
    entry = train(SlowData(0.0), SlowModel(0.0))[0]
    measured = {key for key in entry if key.startswith('data/')}
    assert measured == set(THROUGHPUT_KEYS)


def test_a_count_that_the_optimizer_keeps_is_looked_at_only_when_it_is_read(monkeypatch):
    optimizer = chainerlp.AdaptiveLossScaling(chainer.optimizers.SGD())
    reads = []
    monkeypatch.setattr(type(optimizer), 'skipped', property(lambda _: reads.append(0) or 7))
    skipped = SkippedUpdates(optimizer)
    skipped(trainer=None)
    assert not reads and skipped.count == 7 and reads


@pytest.mark.parametrize('stop', [4, 3], ids=['at once', 'resumed amidst an entry'])
def test_an_extreme_is_logged_as_the_extreme_and_a_count_as_the_newest(tmp_path, stop):
    reported = {
        'scaling/scale_max': [16.0, 4.0, 2.0, 8.0],
        'scaling/scale_min': [2.0, 1.0, 1.0, 2.0],
        'scaling/skipped': [0, 1, 1, 3],
        'scaling/underflow': [0.5, 0.25, 0.5, 0.25],
    }

    def trainer_until(iterations):
        optimizer = chainer.optimizers.SGD().setup(SlowModel(0.0))
        updater = training.updaters.StandardUpdater(Batches(SlowData(0.0), 4), optimizer)
        trainer = training.Trainer(updater, (iterations, 'iteration'), str(tmp_path))

        def report(trainer):
            at = trainer.updater.iteration - 1
            chainer.report({key: values[at] for key, values in reported.items()})

        trainer.extend(report, trigger=(1, 'iteration'), priority=training.PRIORITY_WRITER)
        trainer.extend(Log((2, 'iteration')))
        return trainer

    trainer = trainer_until(stop)
    trainer.run()
    if stop < 4:
        chainer.serializers.save_npz(tmp_path / 'snapshot.npz', trainer)
        trainer = trainer_until(4)
        chainer.serializers.load_npz(tmp_path / 'snapshot.npz', trainer)
        trainer.run()
    for key, expected in {
        'scaling/scale_max': [16.0, 8.0],
        'scaling/scale_min': [1.0, 1.0],
        'scaling/skipped': [1, 3],
        'scaling/underflow': [0.375, 0.375],
    }.items():
        assert [entry[key] for entry in trainer.get_extension('LogReport').log] == expected, key
