"""Chainer's log, written so that it is whole whenever the run is killed."""

import json
import os

import chainerlp  # noqa: F401 -- it lets Chainer be imported
from chainerlp.extensions.atomic_write import write_text

from chainer.training import extensions


class Log(extensions.LogReport):
    """Chainer's ``LogReport``, but for the writing of its file.

    Chainer's writes into a temporary folder, which stays behind if it is killed, and does not wait
    for the disk.

    Args:
        trigger: When there is an entry.
    """

    default_name = 'LogReport'

    def __init__(self, trigger):
        super().__init__(trigger=trigger, log_name=None)  # it writes no file

    def __call__(self, trainer):
        """Takes note of the iteration, and writes the file if there is a new entry."""
        entries = len(self.log)
        super().__call__(trainer)
        if len(self.log) > entries:
            write_text(os.path.join(trainer.out, 'log'), json.dumps(self.log, indent=4))
