"""MultiprocessParallelUpdater without NCCL: it says so.

Chainer takes it that NCCL is there if ``cupy.cuda.nccl`` can be imported
(``training/updaters/multiprocess_parallel_updater.py:15``). Today that module always can, and only
its attribute ``available`` tells; the updater then fails on a name that is missing.
"""

from chainerlp.compat.replacing import replace

from chainer.training.updaters import MultiprocessParallelUpdater


def apply():
    """Makes ``MultiprocessParallelUpdater.available`` answer no, if that is the answer."""
    if MultiprocessParallelUpdater.available() and not _is_there():
        replace(MultiprocessParallelUpdater, 'available', _no)


def _is_there():
    from cupy.cuda import nccl

    return getattr(nccl, 'available', True)


def _no(available):
    # It was a static method, which can be called on the class and on an instance.
    return lambda *_: False
