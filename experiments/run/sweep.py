"""Sweeps: several runs, one after another or some at a time, and their summary."""

import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
from typing import NamedTuple

from chainerlp.extensions.files import make_folder
from experiments.config import Config
from experiments.config.errors import ConfigError
from experiments.data.batches import end_with_parent
from experiments.reports import summary
from experiments.reports.summary import Result
from experiments.run import multi_node, resume, train
from experiments.run.launch import Launch, Stop, get_device

import threadpoolctl

_SECONDS_BETWEEN_LOOKS = 0.2


class Slot(NamedTuple):
    """Where one of several runs is computed: Chainer's name of the device, and CPU threads."""

    device: str
    threads: int = 1


def execute(configs, folder, launch, progress, summary_path=None, slots=()):
    """Runs what is not finished yet; a run that fails does not stop the others.

    Args:
        configs (list of experiments.config.Config): The runs.
        folder (str): Each gets a folder of its own in it.
        launch (experiments.run.launch.Launch): How they are started.
        progress (experiments.run.progress.Bars or experiments.run.progress.Lines): Shows them.
        summary_path (str): The summary, written after every run; none by default.
        slots (list of Slot): If there are several, as many runs at a time, each in a process of
            its own; by default one after another in this process.

    Yields:
        experiments.reports.summary.Result: Of each run, as it ends; on the first worker only.

    Raises:
        ConfigError: If a folder holds a run of another config. Nothing has been run then.
        OSError: If there can be no such folder.
        KeyboardInterrupt: If it is interrupted.
    """
    found = find_states(configs, folder, launch)
    multi_node.on_first(launch.communicator, lambda: make_folder(folder))
    results = {}
    with contextlib.closing(progress):
        if len(slots) > 1:
            ended = _in_processes(configs, found, folder, launch, slots)
        else:
            ended = _one_by_one(configs, folder, launch, progress)
        for result in ended:
            results[result.name] = result
            if summary_path is not None:
                in_order = [results[c.run_name] for c in configs if c.run_name in results]
                summary.write(summary_path, in_order)
            progress.finished(result)
            yield result


def find_states(configs, folder, launch):
    """Returns how far each run is, a list of :class:`~experiments.run.resume.State`.

    Raises:
        ConfigError: If a folder holds a run of another config, or each one a damaged config.
    """
    states = multi_node.on_first(
        launch.communicator,
        lambda: [resume.find_state(os.path.join(folder, c.run_name), c, launch) for c in configs],
    )
    if all(state.problem is not None for state in states):
        raise ConfigError(states[0].problem)
    return states


def _one_by_one(configs, folder, launch, progress):
    for config in configs:
        launch.stop.raise_if_requested()
        extras = progress.extensions(config.run_name)
        result = train.run(config, os.path.join(folder, config.run_name), launch, extras)
        if result is not None:
            yield result


class _Job(NamedTuple):
    config: Config
    slot: Slot
    process: multiprocessing.process.BaseProcess
    pipe: multiprocessing.connection.Connection

    def result(self, was_told_to_stop):
        """Returns how it ended; ``None`` if it was interrupted."""
        self.process.join()
        with contextlib.suppress(EOFError):  # it died
            return self.pipe.recv()
        if was_told_to_stop:  # so early that it could not say
            return None
        code = self.process.exitcode
        how = f'was killed by signal {-code}' if code < 0 else f'ended with exit code {code}'
        return Result(self.config, 0.0, error=f'its process {how}')


def _in_processes(configs, states, folder, launch, slots):
    """Runs as many configs at a time as there are slots, each in a process of its own.

    Once it is to stop, the runs are stopped cleanly and no other is begun; interrupted once more it
    kills them.
    """
    for state in states:
        if state.result is not None:
            train.warn(state)
            yield state.result
    waiting = [config for config, state in zip(configs, states) if state.result is None]
    free, running = list(slots), []
    told = False
    try:
        while running or (waiting and launch.stop.signal is None):
            while waiting and free and launch.stop.signal is None:
                running.append(_start(waiting.pop(0), free.pop(0), folder, launch))
            sentinels = [job.process.sentinel for job in running]
            multiprocessing.connection.wait(sentinels, _SECONDS_BETWEEN_LOOKS)
            if launch.stop.signal is not None and not told:
                told = True  # twice would be to stop at once
                for job in running:
                    job.process.terminate()
            for job in [job for job in running if not job.process.is_alive()]:
                running.remove(job)
                free.append(job.slot)
                result = job.result(told)
                if result is not None:
                    yield result
        launch.stop.raise_if_requested()
    finally:
        for job in running:
            job.process.kill()
            job.process.join()


def _start(config, slot, folder, launch):
    # A new interpreter: Chainer and CuPy have state that a fork would share.
    context = multiprocessing.get_context('spawn')
    ours, theirs = context.Pipe(duplex=False)
    arguments = (theirs, config, os.path.join(folder, config.run_name), slot)
    process = context.Process(
        target=_run_in_process, args=(*arguments, launch.fresh, launch.command), daemon=False
    )
    # Ctrl-C goes to all processes of a terminal. Those here are told by the first one, once: they
    # never see it themselves, not even while they start. (The tracker's start would unblock it.)
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return _Job(config, slot, process, ours)


def _run_in_process(pipe, config, out, slot, fresh, command):
    end_with_parent()
    with Stop([signal.SIGTERM], message='') as stop:
        try:
            device = get_device(slot.device)
            launch = Launch(device, fresh=fresh, stop=stop, command=command)
            with threadpoolctl.threadpool_limits(slot.threads, user_api='blas'):
                result = train.run(config, out, launch)
        except ConfigError as error:
            result = Result(config, 0.0, error=str(error))
        except KeyboardInterrupt:
            result = None
        pipe.send(result)
