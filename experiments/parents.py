"""Processes that do not outlive the one that started them, however it ended."""

import multiprocessing
import multiprocessing.connection
import os
import threading


def end_with_parent():
    """Lets this process end at once when its parent does.

    A parent that is killed cannot stop its processes, and one that waits for work does not notice:
    its siblings hold the other end of the pipe, too.
    """
    threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end():
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
