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
    workers,
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


def run(config, folder, device, extras=(), communicator=None):
    """Trains a model, evaluates it, and leaves all that is to be known about it in a folder.

    The folder gets ``config.yaml`` (which ``train`` runs again), Chainer's ``log``, ``scales.csv``,
    a snapshot and, once all is done, ``result.json``; what an earlier run of the same name left
    there is removed first. A run that fails leaves ``error.txt``.

    Many workers train one model: each has a share of the data and of each batch, and the first one
    writes and evaluates for all. A worker that fails ends all of them, since the others would wait
    for it.

    Args:
        config (experiments.config.Config): The config, of a single run.
        folder (str): Where its files go.
        device (~chainer.backend.Device): Where it runs.
        extras (iterable of ~chainer.training.Extension): More to do at each iteration, such as
            showing progress.
        communicator (~chainermn.CommunicatorBase): Of the workers; ``None`` if there is one.

    Returns:
        experiments.summary.Result: How it ended; a failure is a result too. ``None`` on all workers
        but the first.
    """
    if workers.is_first(communicator):
        _clear(folder)
        # Before the run, so that the folder of an interrupted one says what it was.
        content = config.model_dump(mode='python', exclude_none=True)
        atomic.write(os.path.join(folder, 'config.yaml'), yaml.safe_dump(content, sort_keys=False))
    trainer = None
    with _settings(config, device):
        try:
            trainer, skipped = _trainer(config, folder, device, extras, communicator)
            trainer.run(show_loop_exception_msg=False)
            if not workers.is_first(communicator):
                return None
            result = _result(config, trainer, skipped)
            atomic.write(os.path.join(folder, _RESULT), json.dumps(result.row(), indent=2))
            return result
        except Exception as error:  # whatever it is, the other runs of a sweep go on
            os.makedirs(folder, exist_ok=True)
            atomic.write(os.path.join(folder, _ERROR), traceback.format_exc())
            if communicator is not None:
                traceback.print_exc()
                communicator.mpi_comm.Abort(1)
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
                warnings.filterwarnings('ignore', 'chainermn.* is experimental', FutureWarning)
                yield
    finally:
        random.setstate(of_python)
        numpy.random.set_state(of_numpy)


def _trainer(config, folder, device, extras, communicator):
    data = datasets.load(config.dataset, chainer.get_dtype())
    model = chainer.links.Classifier(
        models.build(config.model, data), classification.loss, classification.accuracy
    )
    optimizer = workers.averaging(optimizers.build(config.optimizer), communicator)
    optimizer = methods.setup(optimizer, model, config.scaling)
    workers.equalize(optimizer, communicator)
    order = chainer.iterators.ShuffleOrderSampler(numpy.random.RandomState(config.seed))
    train = workers.share(data.train, communicator, shuffle=True, seed=config.seed)
    # A share each of the batch, so that a config means the same however many work on it.
    batch_size = math.ceil(config.train.batch_size / (communicator.size if communicator else 1))
    batches = chainer.iterators.SerialIterator(train, batch_size, order_sampler=order)
    updater = training.updaters.StandardUpdater(batches, optimizer, device=device)
    iterations = _iterations(config.train, len(train), batch_size)
    trainer = training.Trainer(updater, (iterations, 'iteration'), folder)
    test = workers.share(data.test, communicator, force_equal_length=False)
    _evaluate(trainer, config, iterations, test, communicator)
    skipped = SkippedUpdates()
    if workers.is_first(communicator):
        _extend(trainer, config, iterations, [skipped, *extras])
    return trainer, skipped


def _iterations(section, examples, batch_size):
    iterations = math.ceil(section.epochs * examples / batch_size)
    return min(iterations, section.max_iterations or iterations)


def _evaluate(trainer, config, iterations, test, communicator):
    batches = chainer.iterators.SerialIterator(
        test, config.train.batch_size, repeat=False, shuffle=False
    )
    evaluator = Evaluator(
        batches,
        trainer.updater.get_optimizer('main').target,
        device=trainer.updater.device,
        communicator=communicator,
    )
    trainer.extend(evaluator, trigger=triggers.EpochsAndEnd(config.train.evaluate, iterations))


def _extend(trainer, config, iterations, more):
    # The log has a trigger of its own, since a trigger keeps count.
    log_trigger = triggers.EpochsAndEnd(config.train.evaluate, iterations)
    trainer.extend(
        chainerlp.extensions.ScaleReport(_SCALES, trigger=(config.report.interval, 'iteration'))
    )
    trainer.extend(extensions.LogReport(trigger=log_trigger))
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
