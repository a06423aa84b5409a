"""From a config to a trainer: data, model, optimizer, and what watches over them."""

import math

import chainerlp
from experiments import data as datasets
from experiments import methods, models, optimizers, tasks, workers
from experiments.runner import batches, folder, length, triggers
from experiments.runner.learning_rate import LearningRate
from experiments.runner.leftovers import Leftovers
from experiments.runner.log import Log
from experiments.runner.seeding import Seeding
from experiments.runner.skipped import SkippedUpdates
from experiments.runner.snapshots import Snapshots
from experiments.runner.updater import Updater
from experiments.throughput import Throughput

import chainer
from chainer import training
from chainer.training import extensions


def trainer(config, out, launch, extras=()):
    """Builds a run's trainer, with all that belongs to a run.

    Args:
        config (experiments.config.Config): The config.
        out (str): The run's folder.
        launch (experiments.runner.Launch): How it is started.
        extras (iterable of ~chainer.training.Extension): More to do at each iteration, on the first
            worker.

    Returns:
        ~chainer.training.Trainer: The trainer; its length is in iterations.
    """
    task = tasks.get(config.task)
    data = datasets.load(config.dataset, chainer.get_dtype())
    built = _bare(config, task, data, out, launch)
    iterations = built.stop_trigger.period

    def due(interval):
        return triggers.IntervalAndEnd(interval, iterations)  # each keeps its own count

    built.extend(
        _evaluator(config, task, data, built.updater, launch), trigger=due(config.train.evaluate)
    )
    built.extend(Leftovers(built.updater.get_optimizer('main')))
    built.extend(
        Snapshots(due(config.train.snapshot), iterations, launch.stop, launch.communicator)
    )
    if workers.is_first(launch.communicator):
        built.extend(_scale_report(config))
        built.extend(
            Throughput(built.updater.get_iterator('main'), due(config.train.evaluate)),
            trigger=(1, 'iteration'),
        )
        built.extend(Log(due(config.train.evaluate)))
        built.extend(extensions.observe_lr(), trigger=(1, 'iteration'))
        for extension in [SkippedUpdates(), *extras]:
            built.extend(extension)
    return built


def measured_trainer(config, out, launch):
    """Builds a run's trainer with nothing but what takes time at each iteration.

    Args:
        config (experiments.config.Config): The config.
        out (str): A folder that may be thrown away.
        launch (experiments.runner.Launch): How it is started.

    Returns:
        ~chainer.training.Trainer: The trainer.
    """
    data = datasets.load(config.dataset, chainer.get_dtype())
    built = _bare(config, tasks.get(config.task), data, out, launch)
    if workers.is_first(launch.communicator):
        built.extend(_scale_report(config))
    return built


def _bare(config, task, data, out, launch):
    communicator = launch.communicator
    chain = task.chain(models.build(config.model, data), data)
    optimizer = workers.averaging(optimizers.build(config.optimizer), communicator)
    optimizer = methods.setup(optimizer, chain, config.scaling)
    optimizers.add_weight_decay(optimizer, config.optimizer)
    workers.equalize(optimizer, communicator)
    train = workers.share(data.train, communicator, shuffle=True, seed=config.seed)
    # A share each of the batch, so that a config means the same however many work on it.
    batch_size = math.ceil(config.train.batch_size / (communicator.size if communicator else 1))
    seeding = Seeding(config.seed, launch.device)
    seeding(0)  # the first order of the data is the same for all models
    pace = length.Pace(len(train), batch_size)
    rate = LearningRate(optimizer, optimizers.rate_of(config.optimizer), config.schedule, pace)
    updater = Updater(
        batches.to_train(task.examples(train, chain), batch_size, config),
        optimizer,
        task.converter,
        device=launch.device,
        before=[seeding, rate],
    )
    iterations = length.of_training(config.train, pace)
    return training.Trainer(updater, (iterations, 'iteration'), out)


def _evaluator(config, task, data, updater, launch):
    test = workers.share(data.test, launch.communicator, force_equal_length=False)
    found = batches.to_evaluate(test, config)
    chain = updater.get_optimizer('main').target
    return task.evaluator(found, chain, data, launch.device, launch.communicator)


def _scale_report(config):
    return chainerlp.extensions.ScaleReport(
        folder.SCALES, trigger=(config.report.interval, 'iteration')
    )
