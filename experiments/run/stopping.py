"""Stopping cleanly: on Ctrl-C or SIGTERM an iteration is finished and saved first."""

import contextlib
import signal
import sys
import threading

_MESSAGE = 'stopping at the end of this iteration, with a snapshot; once more to stop at once'


class Stop:
    """A request to stop, made by a signal; the second one interrupts at once.

    As a context manager it takes the signals, in the main thread.

    Args:
        signals (tuple of int): Which; SIGINT (Ctrl-C) and SIGTERM by default.
        message (str): What is printed to stderr at the first one; nothing if empty.

    Attributes:
        signal (int): The first signal that came; ``None`` before.
    """

    def __init__(self, signals=(signal.SIGINT, signal.SIGTERM), message=_MESSAGE):
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
