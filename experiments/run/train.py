"""One training run: from its config to a folder of results."""

import contextlib
import dataclasses
import json
import os
import sys
import time
import traceback
import warnings
from typing import Optional

from chainerlp.extensions.atomic_write import write_text
from experiments import tasks
from experiments.config.errors import ConfigError, RunError
from experiments.reports.run_folder import ERROR, RESULT, SCALES
from experiments.reports.summary import Result, read_underflow
from experiments.run import multi_node, optimizers, resume, seeding, snapshots
from experiments.run.stopping import Stop
from experiments.run.trainer import build_trainer

import chainer
import numpy

# A worker whose error is one line waits for so long, since the first one most likely says the same.
_SECONDS_TO_TELL = 2.0


@dataclasses.dataclass(frozen=True)
class Launch:
    """How runs are started.

    Attributes:
        device (~chainer.backend.Device): Where they run.
        communicator (~chainermn.CommunicatorBase): Of the workers; ``None`` if there is one.
        fresh (bool): Whether they start over, whatever an earlier one left.
        stop (~experiments.run.stopping.Stop): Is asked whether to stop.
        command (str): The command, to be written down.
    """

    device: object
    communicator: Optional[object] = None
    fresh: bool = False
    stop: Stop = dataclasses.field(default_factory=Stop)
    command: str = ''


def run(config, out, launch, extras=()):
    """Trains a model, evaluates it, and leaves all that is to be known about it in a folder.

    The folder gets ``config.yaml`` (which ``train`` runs again), ``run.json`` (where it comes
    from), Chainer's ``log``, ``scales.csv``, snapshots and, once all is done, ``result.json``. A
    run that was interrupted goes on from its newest intact snapshot, as if it had not been; of a
    finished one the result is returned. A run that fails leaves ``error.txt``.

    Many workers train one model: each has a share of the data and of each batch, and the first one
    writes for all. A worker that fails ends all of them, since the others would wait for it.

    Args:
        config (experiments.config.Config): The config, of a single run.
        out (str): Where its files go.
        launch (Launch): How it is started.
        extras (iterable of ~chainer.training.Extension): More to do at each iteration, such as
            showing progress.

    Returns:
        experiments.reports.summary.Result: How it ended; a failure is a result too. ``None`` on all
        workers but the first.

    Raises:
        ConfigError: If the folder holds a run of another config.
        KeyboardInterrupt: If it is interrupted; what is done stays.
    """
    is_first = multi_node.is_first(launch.communicator)
    with contextlib.ExitStack() as stack:
        try:
            state = multi_node.on_first(
                launch.communicator, lambda: _begin(config, out, launch, stack)
            )
        except (RunError, OSError) as error:  # the folder cannot be had
            return Result(config, 0.0, error=_reason(error)) if is_first else None
        if state.result is not None:
            return state.result if is_first else None
        return _train(config, out, launch, state, extras)


def _begin(config, out, launch, stack):
    stack.enter_context(resume.locked(out))
    state = resume.find_state(out, config, launch)
    if state.result is None:
        for iteration in state.damaged:
            _say(f'warning: {snapshots.path_of(out, iteration)} is damaged')
        if state.iteration is not None:
            _say(f'{config.run_name}: resumes at iteration {state.iteration}')
        elif state.damaged:
            _say(f'{config.run_name}: begins anew, no snapshot is intact')
        resume.prepare(out, config, launch, state)
    return state


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
            write_text(os.path.join(out, RESULT), json.dumps(result.content(), indent=2))
            snapshots.keep(out, 1)
            return result
        except Exception as error:  # whatever it is, the other runs of a sweep go on
            with contextlib.suppress(OSError):  # the disk may be full
                write_text(os.path.join(out, ERROR), traceback.format_exc())
            if launch.communicator is not None:
                _tell(error, launch.communicator)
                launch.communicator.mpi_comm.Abort(1)
            return Result(config, seconds, error=_reason(error))


def _tell(error, communicator):
    if not isinstance(error, (RunError, ConfigError)):
        traceback.print_exc()
        return
    if not multi_node.is_first(communicator):
        time.sleep(_SECONDS_TO_TELL)
    _say(_reason(error))


def _reason(error):
    if isinstance(error, (RunError, ConfigError)):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f'{error.filename}: {error.strerror}'
    return ' '.join(f'{type(error).__name__}: {error}'.split())


@contextlib.contextmanager
def settings(config, device):
    """Everything global that a run depends on, and back to what it was before.

    Args:
        config (experiments.config.Config): The config.
        device (~chainer.backend.Device): Where it runs.
    """
    device.use()
    with contextlib.ExitStack() as stack:
        stack.enter_context(seeding.seeded(config.seed, device))
        dtype = optimizers.DTYPES[config.scaling.dtype]
        stack.enter_context(chainer.using_config('dtype', dtype))
        # Overflow is what is studied here, and it is counted: by the skipped updates, by a loss
        # that is not finite. Chainer and NumPy need not warn of it too.
        stack.enter_context(numpy.errstate(over='ignore', invalid='ignore'))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings('ignore', 'Non finite number found in param.grad')
        warnings.filterwarnings('ignore', 'chainermn.* is experimental', FutureWarning)
        yield


def _result(config, trainer):
    last = trainer.get_extension('LogReport').log[-1]
    return Result(
        config,
        trainer.elapsed_time,
        value=last[tasks.get(config.task).key],
        loss=last.get('validation/main/loss', last['main/loss']),
        underflow=read_underflow(os.path.join(trainer.out, SCALES)),
        skipped=trainer.get_extension('SkippedUpdates').count,
        iterations=trainer.updater.iteration,
    )
