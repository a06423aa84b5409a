"""ScaleReport measures at its trigger, on any iterator, and asks it once an iteration."""

from chainerlp.extensions import ScaleReport
from tests.extensions.reported_trainings import MLP, make_trainer, rows_of

import chainer
import pytest
from chainer import training


@pytest.mark.parametrize(
    'trigger, iterations',
    [
        ((1, 'iteration'), range(1, 9)),
        ((3, 'iteration'), (3, 6)),
        ((1, 'epoch'), (4, 8)),
        ((0.5, 'epoch'), (2, 4, 6, 8)),
        (training.triggers.ManualScheduleTrigger([2, 7], 'iteration'), (2, 7)),
        (training.triggers.OnceTrigger(), (1,)),
        (lambda trainer: trainer.updater.iteration == 5, (5,)),
    ],
    ids=['each', 'third', 'epoch', 'half epoch', 'schedule', 'once', 'callable'],
)
def test_it_measures_the_iterations_at_its_trigger(tmp_path, trigger, iterations):
    make_trainer(tmp_path, extension=ScaleReport(trigger=trigger)).run()
    assert {row['iteration'] for row in rows_of(tmp_path)} == {str(i) for i in iterations}


def test_epochs_that_are_no_whole_number_of_batches_are_met(tmp_path):
    extension = ScaleReport(trigger=(1, 'epoch'))
    make_trainer(tmp_path, epochs=3, batch_size=5, extension=extension).run()
    # 32 examples in batches of 5: iterations 7, 13 and 20 are the first to reach 1, 2 and 3 epochs.
    assert {row['iteration'] for row in rows_of(tmp_path)} == {'7', '13', '20'}


class Uneven(chainer.dataset.Iterator):
    """Its batches differ in size, so that nobody can tell the next epoch before it is asked."""

    def __init__(self, dataset):
        self._dataset = dataset
        self._given = 0
        self.epoch_detail = 0.0
        self.previous_epoch_detail = -1.0
        self.is_new_epoch = False

    @property
    def epoch(self):
        return int(self.epoch_detail)

    def __next__(self):
        size = (3, 11, 6)[self._given % 3]
        self._given += 1
        self.previous_epoch_detail = self.epoch_detail
        self.epoch_detail += size / len(self._dataset)
        self.is_new_epoch = self.epoch > int(self.previous_epoch_detail)
        return self._dataset[:size]

    next = __next__


@pytest.mark.parametrize(
    'make_trigger',
    [
        lambda: (1, 'epoch'),
        lambda: (0.3, 'epoch'),
        lambda: training.triggers.ManualScheduleTrigger([0.5, 1, 1.7], 'epoch'),
        lambda: lambda trainer: trainer.updater.is_new_epoch,
    ],
    ids=['epoch', 'third of an epoch', 'schedule', 'new epoch'],
)
@pytest.mark.parametrize(
    'make_iterator',
    [
        lambda dataset: chainer.iterators.SerialIterator(dataset, 5),
        lambda dataset: chainer.iterators.SerialIterator(dataset, 3, shuffle=False),
        lambda dataset: chainer.iterators.MultithreadIterator(dataset, 7, n_threads=1),
        Uneven,
    ],
    ids=['five', 'three', 'threads', 'uneven'],
)
def test_it_measures_when_other_extensions_of_the_same_trigger_are_called(
    tmp_path, make_iterator, make_trigger
):
    trainer = make_trainer(tmp_path, 'float32', 3, ScaleReport(trigger=make_trigger()), net=MLP)
    iterators = trainer.updater._iterators
    iterators['main'] = make_iterator(iterators['main'].dataset)
    called = []
    trainer.extend(
        lambda trainer: called.append(str(trainer.updater.iteration)), 'other', make_trigger()
    )
    trainer.run()
    assert list(dict.fromkeys(row['iteration'] for row in rows_of(tmp_path))) == called
    assert len(called) >= 3


@pytest.mark.parametrize('priority', [1, 1000], ids=['after it', 'before it'])
@pytest.mark.parametrize('trigger', [(1, 'iteration'), (2, 'iteration'), (1, 'epoch')], ids=str)
def test_backward_passes_of_other_extensions_are_not_measured(tmp_path, trigger, priority):
    for is_run in (False, True):
        out = tmp_path / str(is_run)
        trainer = make_trainer(out, extension=ScaleReport(trigger=trigger))

        @training.make_extension(trigger=(1, 'iteration'), priority=priority)
        def run_backward(trainer):
            updater = trainer.updater
            batch = updater.converter(updater.get_iterator('main').dataset[:4])
            updater.get_optimizer('main').target(*batch).backward()

        if is_run:
            trainer.extend(run_backward)
        trainer.run()
    assert rows_of(tmp_path / 'True') == rows_of(tmp_path / 'False') != []


@pytest.mark.parametrize('trigger', [(3, 'iteration'), (1, 'epoch')], ids=str)
def test_its_trigger_is_asked_once_for_each_iteration(tmp_path, trigger):
    asked = []

    class Trigger(training.triggers.IntervalTrigger):
        def __call__(self, trainer):
            asked.append((trainer.updater.iteration, trainer.updater.epoch_detail))
            return super().__call__(trainer)

    make_trainer(tmp_path, extension=ScaleReport(trigger=Trigger(*trigger))).run()
    assert asked == [(iteration, iteration / 4) for iteration in range(1, 9)]
