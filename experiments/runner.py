"""One training run: from its config to a folder of results."""

import contextlib
import glob
import json
import math
import os
import random
import traceback
import warnings

import chainerlp
from experiments import (
    atomic,
    classification,
    datasets,
    methods,
    models,
    optimizers,
    triggers,
    underflow,
)
from experiments.evaluation import Evaluator
from experiments.skipped import SkippedUpdates
from experiments.summary import Result

import chainer
import numpy
import yaml
from chainer import training
from chainer.training import extensions

_SCALES = 'scales.csv'
_ERROR = 'error.txt'
_RESULT = 'result.json'
_FILES = ('config.yaml', 'log', _SCALES, _ERROR, _RESULT, 'snapshot_iter_*')


def run(config, folder, device, extras=()):
    """Trains a model, evaluates it, and leaves all that is to be known about it in a folder.

    The folder gets ``config.yaml`` (which ``train`` runs again), Chainer's ``log``, ``scales.csv``,
    a snapshot and, once all is done, ``result.json``; what an earlier run of the same name left
    there is removed first. A run that fails leaves ``error.txt``.

    Args:
        config (experiments.config.Config): The config, of a single run.
        folder (str): Where its files go.
        device (~chainer.backend.Device): Where it runs.
        extras (iterable of ~chainer.training.Extension): More to do at each iteration, such as
            showing progress.

    Returns:
        experiments.summary.Result: How it ended; a failure is a result too.
    """
    _clear(folder)
    # Before the run, so that the folder of an interrupted one says what it was.
    content = config.model_dump(mode='python', exclude_none=True)
    atomic.write(os.path.join(folder, 'config.yaml'), yaml.safe_dump(content, sort_keys=False))
    trainer = None
    with _settings(config, device):
        try:
            trainer, skipped = _trainer(config, folder, device, extras)
            trainer.run(show_loop_exception_msg=False)
            result = _result(config, trainer, skipped)
            atomic.write(os.path.join(folder, _RESULT), json.dumps(result.row(), indent=2))
            return result
        except Exception as error:  # whatever it is, the other runs of a sweep go on
            atomic.write(os.path.join(folder, _ERROR), traceback.format_exc())
            seconds = trainer.elapsed_time if trainer else 0.0
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())
            return Result(config, seconds, error=reason)


def _clear(folder):
    os.makedirs(folder, exist_ok=True)
    for name in _FILES:
        for path in glob.glob(os.path.join(glob.escape(folder), name)):
            os.remove(path)


@contextlib.contextmanager
def _settings(config, device):
    """Everything global that a run depends on, and back to what it was before."""
    of_python, of_numpy = random.getstate(), numpy.random.get_state()
    random.seed(config.seed)
    numpy.random.seed(config.seed)
    device.use()
    if device.xp is not numpy:
        device.xp.random.seed(config.seed)
    try:
        with chainer.using_config('dtype', methods.DTYPES[config.scaling.dtype]):
            # Overflow is what is studied here, and it is counted: by the skipped updates, by a loss
            # that is not finite. Chainer and NumPy need not warn of it too.
            with numpy.errstate(over='ignore', invalid='ignore'), warnings.catch_warnings():
                warnings.filterwarnings('ignore', 'Non finite number found in param.grad')
                yield
    finally:
        random.setstate(of_python)
        numpy.random.set_state(of_numpy)


def _trainer(config, folder, device, extras):
    data = datasets.load(config.dataset, chainer.get_dtype())
    model = chainer.links.Classifier(
        models.build(config.model, data), classification.loss, classification.accuracy
    )
    optimizer = methods.setup(optimizers.build(config.optimizer), model, config.scaling)
    order = chainer.iterators.ShuffleOrderSampler(numpy.random.RandomState(config.seed))
    batches = chainer.iterators.SerialIterator(
        data.train, config.train.batch_size, order_sampler=order
    )
    updater = training.updaters.StandardUpdater(batches, optimizer, device=device)
    iterations = _iterations(config.train, len(data.train))
    trainer = training.Trainer(updater, (iterations, 'iteration'), folder)
    skipped = SkippedUpdates()
    _extend(trainer, config, iterations, data.test, [skipped, *extras])
    return trainer, skipped


def _iterations(section, examples):
    iterations = math.ceil(section.epochs * examples / section.batch_size)
    return min(iterations, section.max_iterations or iterations)


def _extend(trainer, config, iterations, test, more):
    def due():  # each extension gets a trigger of its own, since they keep count
        return triggers.EpochsAndEnd(config.train.evaluate, iterations)

    test_batches = chainer.iterators.SerialIterator(
        test, config.train.batch_size, repeat=False, shuffle=False
    )
    model, device = trainer.updater.get_optimizer('main').target, trainer.updater.device
    trainer.extend(Evaluator(test_batches, model, device=device), trigger=due())
    trainer.extend(
        chainerlp.extensions.ScaleReport(_SCALES, trigger=(config.report.interval, 'iteration'))
    )
    trainer.extend(extensions.LogReport(trigger=due()))
    trainer.extend(extensions.snapshot(), trigger=triggers.AtEnd(iterations))
    for extension in more:
        trainer.extend(extension)


def _result(config, trainer, skipped):
    last = trainer.get_extension('LogReport').log[-1]
    return Result(
        config,
        trainer.elapsed_time,
        accuracy=last['validation/main/accuracy'],
        loss=last['validation/main/loss'],
        underflow=underflow.read(os.path.join(trainer.out, _SCALES)),
        skipped=skipped.count,
    )
