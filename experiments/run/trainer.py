"""From a config to a trainer: data, model, optimizer and extensions."""

import math

import chainerlp
from experiments import data as datasets
from experiments import models, tasks
from experiments.data.batches import Batches
from experiments.reports import run_folder
from experiments.run import multi_node, optimizers, schedule
from experiments.run.log import Log, SkippedUpdates, Throughput
from experiments.run.seeding import Seeding
from experiments.run.snapshots import OptimizerState, Snapshots

import chainer
from chainer import training
from chainer.training import extensions, updaters


def build_trainer(config, out, launch, extras=()):
    """Builds a run's trainer, with all that belongs to a run.

    Args:
        config (experiments.config.Config): The config.
        out (str): The run's folder.
        launch (experiments.run.train.Launch): How it is started.
        extras (iterable of ~chainer.training.Extension): More to do at each iteration, on the first
            worker.

    Returns:
        ~chainer.training.Trainer: The trainer; its length is in iterations.
    """
    task = tasks.get(config.task)
    data = datasets.load(config.dataset, chainer.get_dtype())
    trainer = _bare(config, task, data, out, launch)
    optimizer = trainer.updater.get_optimizer('main')
    iterations = trainer.stop_trigger.period

    def due(interval):
        return schedule.IntervalAndEnd(interval, iterations)  # each keeps its own count

    test = multi_node.share(data.test, launch.communicator, force_equal_length=False)
    test = _batches(test, config.train.batch_size, config, repeat=False, shuffle=False)
    evaluator = task.evaluator(test, optimizer.target, data, launch.device, launch.communicator)
    trainer.extend(evaluator, trigger=due(config.train.evaluate))
    trainer.extend(OptimizerState(optimizer))
    snapshots = Snapshots(due(config.train.snapshot), iterations, launch.stop, launch.communicator)
    trainer.extend(snapshots)
    if multi_node.is_first(launch.communicator):
        trainer.extend(_scale_report(config))
        batches = trainer.updater.get_iterator('main')
        trainer.extend(Throughput(batches, due(config.train.evaluate)), trigger=(1, 'iteration'))
        trainer.extend(Log(due(config.train.evaluate)))
        trainer.extend(extensions.observe_lr(), trigger=(1, 'iteration'))
        for extension in [SkippedUpdates(optimizer), *extras]:
            trainer.extend(extension)
    return trainer


def build_timed_trainer(config, out, launch):
    """Builds a run's trainer with only what takes time at each iteration.

    Args:
        config (experiments.config.Config): The config.
        out (str): A folder that may be thrown away.
        launch (experiments.run.train.Launch): How it is started.

    Returns:
        ~chainer.training.Trainer: The trainer.
    """
    data = datasets.load(config.dataset, chainer.get_dtype())
    trainer = _bare(config, tasks.get(config.task), data, out, launch)
    if multi_node.is_first(launch.communicator):
        trainer.extend(_scale_report(config))
    return trainer


class Updater(updaters.StandardUpdater):
    """Chainer's updater, with functions that are called before each update.

    What they do follows from the iteration alone, so that a snapshot need not hold their state.

    Args:
        *args: As Chainer's.
        before (iterable of callable): Each is called with how many iterations are over.
        **kwargs: As Chainer's.
    """

    def __init__(self, *args, before=(), **kwargs):
        super().__init__(*args, **kwargs)
        self._before = before

    def update_core(self):
        """Calls the functions and updates."""
        for function in self._before:
            function(self.iteration)
        super().update_core()


def _bare(config, task, data, out, launch):
    communicator = launch.communicator
    chain = task.chain(models.build(config.model, data), data)
    optimizer = multi_node.average_gradients(optimizers.build(config.optimizer), communicator)
    optimizer = optimizers.setup(optimizer, chain, config.scaling)
    optimizers.add_weight_decay(optimizer, config.optimizer)
    multi_node.bcast_params(optimizer, communicator)
    train = multi_node.share(data.train, communicator, shuffle=True, seed=config.seed)
    # A share each of the batch, so that a config means the same however many work on it.
    batch_size = math.ceil(config.train.batch_size / (communicator.size if communicator else 1))
    seeding = Seeding(config.seed, launch.device)
    seeding(0)  # the first order of the data is the same for all models
    pace = schedule.Pace(len(train), batch_size)
    learning_rate = schedule.LearningRate(
        optimizer, optimizers.learning_rate_attribute(config.optimizer), config.schedule, pace
    )
    updater = Updater(
        _batches(task.examples(train, chain), batch_size, config),
        optimizer,
        task.converter,
        device=launch.device,
        before=[seeding, learning_rate],
    )
    iterations = schedule.training_length(config.train, pace)
    return training.Trainer(updater, (iterations, 'iteration'), out)


def _batches(examples, batch_size, config, **options):
    return Batches(examples, batch_size, config.seed, **options, **config.loading.model_dump())


def _scale_report(config):
    return chainerlp.extensions.ScaleReport(
        run_folder.SCALES, trigger=(config.report.interval, 'iteration')
    )
