"""One training run: from its config to a trainer, and to a folder of results."""

import contextlib
import json
import math
import os
import random
import sys
import time
import traceback
import warnings

import chainerlp
from chainerlp.extensions.files import ErrorRow, NonzeroRow, Row, read, write_text
from experiments import data as datasets
from experiments import models, tasks
from experiments.config.errors import OneLineError, RunError, shortened
from experiments.data.batches import Batches
from experiments.reports.run_files import (
    COMPARISON,
    ERROR,
    ERRORS,
    NONZERO,
    PREDICTIONS,
    RESULT,
    SCALES,
    UNBOUNDED,
    ComparisonRow,
    PredictionRow,
    UnboundedRow,
)
from experiments.reports.summary import Result, mean_error, mean_underflow
from experiments.run import multi_node, optimizers, resume, schedule, snapshots
from experiments.run.comparison import Comparison
from experiments.run.log import Log, SkippedUpdates, Throughput
from experiments.run.predictions import Predictions

import chainer
import numpy
from chainer import training
from chainer.training import extensions, updaters

# A worker whose error is one line waits for so long, since the first one most likely says the same.
_SECONDS_TO_TELL = 2.0
_LONGEST_REASON = 1000
# What each file of measurements holds, and the interval of the config at which it does.
_MEASURED = {
    SCALES: (Row, 'interval'),
    ERRORS: (ErrorRow, 'gradient_error'),
    NONZERO: (NonzeroRow, 'gradient_error'),
    PREDICTIONS: (PredictionRow, 'interval'),
    UNBOUNDED: (UnboundedRow, 'interval'),
    COMPARISON: (ComparisonRow, 'comparison'),
}


def run(config, out, launch, extras=()):
    """Trains a model, evaluates it, and leaves all that is to be known about it in a folder.

    The folder gets ``config.yaml`` (which ``train`` runs again), ``run.json`` (where it comes from,
    and checksums of the other files), Chainer's ``log``, ``scales.csv``, snapshots and, once all is
    done, ``result.json``. A run that was interrupted goes on from its newest
    intact snapshot, as if it had not been; of a finished one the result is returned. A run that
    fails leaves ``error.txt``.

    Many workers train one model: each has a share of the data and of each batch, and the first one
    writes for all. A worker that fails ends all of them, since the others would wait for it.

    Args:
        config (experiments.config.Config): The config, of a single run.
        out (str): The folder.
        launch (experiments.run.launch.Launch): How it is started.
        extras (iterable of ~chainer.training.Extension): More to do at each iteration, such as
            showing progress.

    Returns:
        experiments.reports.summary.Result: How it ended; a failure is a result too. ``None`` on all
        workers but the first.

    Raises:
        ConfigError: If the folder holds a run of another config.
        KeyboardInterrupt: If it is interrupted; what is done stays.
    """
    with contextlib.ExitStack() as stack:
        try:
            state = multi_node.on_first(
                launch.communicator, lambda: _begin(config, out, launch, stack)
            )
        except (RunError, OSError) as error:  # the folder cannot be had
            state = resume.State(problem=_reason(error))
        if state.problem is None and state.result is None:
            return _train(config, out, launch, state, extras)
        if not multi_node.is_first(launch.communicator):
            return None
        return state.result or Result(config, 0.0, error=state.problem)


def _begin(config, out, launch, stack):
    stack.enter_context(resume.locked(out))
    state = resume.find_state(out, config, launch)
    warn(state)
    if state.result is None and state.problem is None:
        for iteration, why in state.damaged.items():
            _say(f'warning: {snapshots.path_of(out, iteration)} is damaged ({why})')
        if state.iteration is not None:
            _say(f'{config.run_name}: resumes at iteration {state.iteration}')
        elif state.damaged:
            _say(f'{config.run_name}: begins anew, no snapshot is intact')
        elif state.warnings:
            _say(f'{config.run_name}: begins anew')
        resume.prepare(out, config, launch, state)
    return state


def warn(state):
    """Prints what an earlier start left damaged, if it did."""
    for warning in state.warnings:
        _say(f'warning: {warning}')


def _say(text):
    print(text, file=sys.stderr, flush=True)


def _train(config, out, launch, state, extras):
    seconds = 0.0
    with settings(config, launch.device):
        try:
            trainer = build_trainer(config, out, launch, extras)
            if state.iteration is not None:
                path = snapshots.path_of(out, state.iteration)
                snapshots.load(path, trainer, launch.communicator)
            try:
                trainer.run(show_loop_exception_msg=False)
            finally:
                seconds = trainer.elapsed_time
            if not multi_node.is_first(launch.communicator):
                return None
            result = _result(config, trainer)
            text = json.dumps(result.content(), indent=2)
            resume.record_end(out, text)
            snapshots.keep(out, 1)  # before the result: once that is there, nothing is tidied up
            write_text(os.path.join(out, RESULT), text)
            return result
        except Exception as error:  # whatever it is, the other runs of a sweep go on
            with contextlib.suppress(OSError):  # the disk may be full
                write_text(os.path.join(out, ERROR), traceback.format_exc())
            if launch.communicator is not None:
                _tell(error, launch.communicator)
                launch.communicator.mpi_comm.Abort(1)
            return Result(config, seconds, error=_reason(error))


def _tell(error, communicator):
    if not isinstance(error, OneLineError):
        traceback.print_exc()
        return
    if not multi_node.is_first(communicator):
        time.sleep(_SECONDS_TO_TELL)
    _say(_reason(error))


def _reason(error):
    if isinstance(error, OneLineError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f'{error.filename}: {error.strerror}'
    return shortened(f'{type(error).__name__}: {error}', _LONGEST_REASON)


@contextlib.contextmanager
def settings(config, device):
    """Sets everything global that a run on a device depends on, and back afterwards."""
    device.use()
    of_python, of_numpy = random.getstate(), numpy.random.get_state()
    _seed(config.seed, config.seed, device)
    try:
        with (
            chainer.using_config('dtype', optimizers.DTYPES[config.scaling.dtype]),
            # Overflow is what is studied here, and it is counted: by the skipped updates, by a loss
            # that is not finite. Chainer and NumPy need not warn of it too.
            numpy.errstate(over='ignore', invalid='ignore'),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings('ignore', 'Non finite number found in param.grad')
            warnings.filterwarnings('ignore', 'chainermn.* is experimental', FutureWarning)
            yield
    finally:
        random.setstate(of_python)
        numpy.random.set_state(of_numpy)


def _seed(seed, of_numpy, device):
    random.seed(seed)
    numpy.random.seed(of_numpy)
    if device.xp is not numpy:
        device.xp.random.seed(seed)


def _result(config, trainer):
    last = trainer.get_extension('LogReport').log[-1]
    rows = {name: _measured(trainer.out, name, kind) for name, (kind, _) in _MEASURED.items()}
    return Result(
        config,
        trainer.elapsed_time,
        value=last[tasks.get(config.task).key],
        loss=last.get('validation/main/loss', last['main/loss']),
        underflow=mean_underflow(rows[SCALES] or ()),
        gradient_error=mean_error(rows[ERRORS] or ()),
        skipped=trainer.get_extension('SkippedUpdates').count,
        iterations=trainer.updater.iteration,
        incomplete=_incomplete(config, rows, trainer.updater.iteration),
    )


def _measured(folder, name, kind):
    """Returns the rows of a file, ``None`` if there was none."""
    path = os.path.join(folder, name)
    if os.path.exists(path):
        return read(path, kind)
    return [] if os.path.exists(path + snapshots.ASIDE) else None


def _incomplete(config, rows, iterations):
    """Returns which iterations files lack: the disk was full for a while, or they were damaged."""
    missing = []
    for name, (_, key) in _MEASURED.items():
        if rows[name] is not None:
            interval = getattr(config.report, key)
            due = set(range(interval, iterations + 1, interval))
            lacking = due - {row.iteration for row in rows[name]}
            if lacking:
                missing.append(f'{name} lacks {len(lacking)} of {len(due)} iterations')
    return '; '.join(missing) or None


def build_trainer(config, out, launch, extras=()):
    """Builds a run's trainer, with all that belongs to a run; its length is in iterations.

    The arguments are those of :func:`run`; the first worker alone gets the ``extras``.
    """
    trainer, data = _bare_trainer(config, out, launch)
    optimizer = trainer.updater.get_optimizer('main')
    communicator = launch.communicator
    due = schedule.IntervalAndEnd  # it keeps count, so each has its own
    test = multi_node.share(data.test, communicator, force_equal_length=False)
    test = _batches(test, config.train.batch_size, config, repeat=False, shuffle=False)
    evaluator = tasks.get(config.task).evaluator(
        test, optimizer.target, data, device=launch.device, communicator=communicator
    )
    trainer.extend(evaluator, trigger=due(config.train.evaluate))
    trainer.extend(snapshots.OptimizerState(optimizer))
    trainer.extend(snapshots.Snapshots(due(config.train.snapshot), launch.stop, communicator))
    if multi_node.is_first(communicator):
        trainer.extend(_scale_report(config))
        if config.report.gradient_error is not None:
            trigger = config.report.gradient_error, 'iteration'
            trainer.extend(chainerlp.extensions.GradientError(trigger))
        if config.report.comparison is not None and config.scaling.method == 'fp32':
            trainer.extend(Comparison(config.report.comparison))
        if config.report.predictions:
            threshold = getattr(config.scaling, 'threshold', Predictions.THRESHOLD)
            trainer.extend(Predictions(config.report.interval, threshold))
        batches = trainer.updater.get_iterator('main')
        trainer.extend(Throughput(batches, due(config.train.evaluate)))
        trainer.extend(Log(due(config.train.evaluate)))
        trainer.extend(extensions.observe_lr(), trigger=(1, 'iteration'))
        for extension in (SkippedUpdates(optimizer), *extras):
            trainer.extend(extension)
    return trainer


def build_timed_trainer(config, out, launch):
    """Builds a run's trainer with only what takes time at each iteration, see :func:`run`."""
    trainer, _ = _bare_trainer(config, out, launch)
    if multi_node.is_first(launch.communicator):
        trainer.extend(_scale_report(config))
    return trainer


class _Updater(updaters.StandardUpdater):
    """Chainer's, with a function that is called with the iterations so far before each update."""

    def __init__(self, *args, before, **kwargs):
        super().__init__(*args, **kwargs)
        self._before = before

    def update_core(self):
        self._before(self.iteration)
        super().update_core()


def _bare_trainer(config, out, launch):
    """Returns a trainer without extensions, and the data."""
    communicator = launch.communicator
    task = tasks.get(config.task)
    data = datasets.load(config.dataset, chainer.get_dtype())
    chain = task.chain(models.build(config.model, data), data)
    optimizer = multi_node.average_gradients(optimizers.build(config.optimizer), communicator)
    optimizer = optimizers.setup(optimizer, chain, config.scaling)
    optimizers.add_hooks(optimizer, config.optimizer)
    multi_node.bcast_params(optimizer, communicator)
    train = multi_node.share(data.train, communicator, shuffle=True, seed=config.seed)
    # A share each of the batch, so that a config means the same however many work on it.
    batch_size = math.ceil(config.train.batch_size / launch.workers)
    pace = schedule.Pace(len(train), batch_size)
    rate = 'alpha' if config.optimizer.name == 'adam' else 'lr'

    def before_update(iteration):
        # All is a function of the iteration, so that a snapshot need not hold the generators'
        # states or the rate: a resumed training draws what it would have drawn. Seeds are below
        # 2^32, and CuPy takes 64 bits.
        _seed(config.seed * 2**31 + iteration, [config.seed, iteration], launch.device)
        factor = schedule.learning_rate_factor(config.schedule, pace, iteration)
        setattr(optimizer, rate, getattr(config.optimizer, rate) * factor)

    updater = _Updater(
        _batches(task.examples(train, chain), batch_size, config),
        optimizer,
        device=launch.device,
        before=before_update,
    )
    iterations = schedule.training_length(config.train, pace)
    return training.Trainer(updater, (iterations, 'iteration'), out), data


def _scale_report(config):
    trigger = config.report.interval, 'iteration'
    return chainerlp.extensions.ScaleReport(SCALES, trigger=trigger)


def _batches(examples, batch_size, config, **options):
    return Batches(examples, batch_size, config.seed, **options, **config.loading.model_dump())
