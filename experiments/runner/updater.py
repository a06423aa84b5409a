"""Chainer's updater, with something to be prepared before each update."""

import chainerlp  # noqa: F401 -- it lets Chainer be imported

from chainer.training import updaters


class Updater(updaters.StandardUpdater):
    """Chainer's updater, with something to be prepared before each update.

    What is prepared follows from the number of the iteration alone, so that there is no state of it
    that a snapshot would have to hold.

    Args:
        *args: As Chainer's.
        before (iterable of callable): Each is called before an update, with how many iterations are
            over.
        **kwargs: As Chainer's.
    """

    def __init__(self, *args, before=(), **kwargs):
        super().__init__(*args, **kwargs)
        self._before = before

    def update_core(self):
        """Prepares and updates."""
        for prepare in self._before:
            prepare(self.iteration)
        super().update_core()
