"""Where examples are loaded: in processes or threads beside the one that trains."""

import concurrent.futures
import functools
import multiprocessing
import os

from experiments.data import worker


def bounded(workers):
    """Returns how many workers there are to be: no more than this process has CPUs.

    Args:
        workers (int): How many are asked for.
    """
    if hasattr(os, 'sched_getaffinity'):
        return min(workers, len(os.sched_getaffinity(0)))
    return min(workers, os.cpu_count() or 1)


def processes(workers, dataset):
    """Starts a pool of processes.

    For data whose examples are costly: Python runs in one thread at a time. Each process has its
    own copy of the data set, and examples are copied from one to the other.

    Args:
        workers (int): How many.
        dataset: The data set; it must be possible to pickle it.

    Returns:
        tuple: The executor, and what to submit to it: a function of seed and places, as
        ``experiments.data.worker.examples``.
    """
    # Not fork: MPI, CUDA and the threads of BLAS do not survive it.
    if 'forkserver' in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context('forkserver')
        context.set_forkserver_preload([worker.__name__])
    else:
        context = multiprocessing.get_context('spawn')
    executor = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=worker.begin, initargs=(dataset,)
    )
    return executor, worker.examples_of_process


def threads(workers, dataset):
    """Starts a pool of threads.

    For data in memory, and for images that are decoded and resized more than computed with: Pillow,
    and NumPy with large arrays, let other threads run meanwhile.

    Args:
        workers (int): How many.
        dataset: The data set; it must bear being read by several threads.

    Returns:
        tuple: As :func:`processes`.
    """
    executor = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix='loader')
    return executor, functools.partial(worker.examples, dataset)


POOLS = {'processes': processes, 'threads': threads}
