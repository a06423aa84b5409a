"""Several runs at a time, each in a process of its own."""

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal

from experiments import devices, runner
from experiments.data.worker_pool import end_with_parent
from experiments.errors import ConfigError
from experiments.summary import Result

import threadpoolctl

_SECONDS_BETWEEN_LOOKS = 0.2


@dataclasses.dataclass(frozen=True)
class Slot:
    """Where one of several runs is computed.

    Attributes:
        device (str): Chainer's name of the device.
        threads (int): CPU threads of a matrix product.
    """

    device: str
    threads: int = 1


@dataclasses.dataclass(frozen=True)
class _Job:
    config: object
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


def execute(configs, folder, launch, slots):
    """Runs configs, as many at a time as there are slots.

    Once it is to stop, the runs are stopped cleanly and no other is begun; interrupted once more it
    kills them.

    Args:
        configs (list of experiments.config.Config): The runs.
        folder (str): Each gets a folder of its own in it.
        launch (experiments.runner.Launch): How they are started; the slots say where.
        slots (list of Slot): Where.

    Yields:
        experiments.summary.Result: Of each run, as it ends.

    Raises:
        KeyboardInterrupt: If it was to stop, or was interrupted.
    """
    waiting, free, running = list(configs), list(slots), []
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
        target=_run, args=(*arguments, launch.fresh, launch.command), daemon=False
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


def _run(pipe, config, out, slot, fresh, command):
    end_with_parent()
    with runner.Stop([signal.SIGTERM], message='') as stop:
        try:
            device = devices.get(slot.device)
            launch = runner.Launch(device, fresh=fresh, stop=stop, command=command)
            with threadpoolctl.threadpool_limits(slot.threads, user_api='blas'):
                result = runner.run(config, out, launch)
        except ConfigError as error:
            result = Result(config, 0.0, error=str(error))
        except KeyboardInterrupt:
            result = None
        pipe.send(result)
