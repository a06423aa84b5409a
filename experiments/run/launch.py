"""How runs are started, on which device, and stopped: on Ctrl-C or SIGTERM with a snapshot."""

import contextlib
import dataclasses
import signal
import sys
import threading
from typing import Optional

from chainerlp import compat
from experiments.config.errors import ConfigError

import chainer
import numpy

_STOPPING = 'stopping at the end of this iteration, with a snapshot; once more to stop at once'


class Stop:
    """A request to stop, made by a signal; the second one interrupts at once.

    As a context manager it takes the signals, in the main thread.

    Args:
        signals (tuple of int): Which; SIGINT (Ctrl-C) and SIGTERM by default.
        message (str): What is printed to stderr at the first one, if anything.

    Attributes:
        signal (int): The first signal that came; ``None`` before.
    """

    def __init__(self, signals=(signal.SIGINT, signal.SIGTERM), message=_STOPPING):
        self.signal = None
        self._signals = signals
        self._message = message
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @property
    def exit_code(self):
        """int: 130 after Ctrl-C and 143 after SIGTERM, as shells have it."""
        return 128 + (signal.SIGINT if self.signal is None else self.signal)

    def raise_if_requested(self):
        """Raises KeyboardInterrupt once a signal has come."""
        if self.signal is not None:
            raise KeyboardInterrupt

    def _take(self, number, frame):
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        if self._message:
            with contextlib.suppress(RuntimeError):  # it came amidst another print
                print(self._message, file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Launch:
    """How runs are started.

    Attributes:
        device (~chainer.backend.Device): Where they run.
        communicator (~chainermn.CommunicatorBase): Of the workers; ``None`` if there is one.
        fresh (bool): Whether they start over, whatever an earlier one left.
        stop (Stop): Is asked whether to stop.
        command (str): The command, to be written down.
    """

    device: object
    communicator: Optional[object] = None
    fresh: bool = False
    stop: Stop = dataclasses.field(default_factory=Stop)
    command: str = ''

    @property
    def workers(self):
        """int: How many workers train one model."""
        return 1 if self.communicator is None else self.communicator.size


def get_device(specifier):
    """Returns a device of Chainer's, and makes sure that it can be used.

    Args:
        specifier (str): Such as ``@numpy`` or ``@cupy:0``; or the number of a GPU, -1 for the CPU,
            as Chainer's examples take it.

    Raises:
        ConfigError: If there is no such device here.
    """
    if specifier.lstrip('-').isdecimal():
        specifier = f'@cupy:{specifier}' if int(specifier) >= 0 else '@numpy'
    try:
        device = chainer.get_device(specifier)
        device.use()
    except Exception as error:  # Chainer's, CuPy's or the driver's
        # Chainer's error points to a page that is gone, and CuPy's to the driver, whatever it is.
        reason = (specifier.startswith('@cupy') and compat.why_no_cupy()) or str(error).strip()
        raise ConfigError(
            f'--device {specifier}: {reason}; allowed: @numpy, or @cupy:0 with CuPy and a GPU'
        ) from None
    return device


def device_of_worker(device, communicator):
    """Returns this worker's device, given the first one's: each of a host has a GPU of its own."""
    if communicator is None or device.xp is numpy:
        return device
    return chainer.get_device(f'@cupy:{device.device.id + communicator.intra_rank}')
