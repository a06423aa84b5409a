"""Loading examples in processes or threads beside the one that trains."""

import concurrent.futures
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading

from experiments.config.errors import ConfigError
from experiments.data.images import collect_warnings
from experiments.data.randomness import using_epoch

# Of a process of a pool: it is sent once.
_dataset = None


def at_most_cpus(workers):
    """Returns a number of workers, or the number of CPUs of this process if that is less."""
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
        tuple: The executor, and what to submit to it: :func:`load_examples` without its first
        argument.
    """
    # Not fork: MPI, CUDA and the threads of BLAS do not survive it.
    if 'forkserver' in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context('forkserver')
        context.set_forkserver_preload([__name__])
    else:
        context = multiprocessing.get_context('spawn')
    executor = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin_process, initargs=(dataset,)
    )
    return executor, _load_in_process


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
    return executor, functools.partial(load_examples, dataset)


POOLS = {'processes': processes, 'threads': threads}


def load_examples(dataset, seed, epochs_and_indices):
    """Loads examples.

    Args:
        dataset: The data set.
        seed (int): The run's seed.
        epochs_and_indices (list of tuple of int): Epoch and index of each.

    Returns:
        tuple: The examples, and the warnings of replaced ones; both lists.

    Raises:
        ConfigError: As the data set does.
        RuntimeError: Of any other error; it names the example.
    """
    loaded = []
    with collect_warnings() as messages:
        for epoch, index in epochs_and_indices:
            try:
                with using_epoch(seed, epoch):
                    loaded.append(dataset[index])
            except ConfigError:  # it names the file
                raise
            except Exception as error:
                raise RuntimeError(
                    f'example {index} of the data set, in epoch {epoch}:'
                    f' {type(error).__name__}: {error}'
                ) from error
    return loaded, messages


def _begin_process(dataset):
    global _dataset
    _dataset = dataset
    # Ctrl-C goes to all processes of a terminal; the one that trains handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _load_in_process(seed, epochs_and_indices):
    return load_examples(_dataset, seed, epochs_and_indices)


def end_with_parent():
    """Lets this process end at once when its parent does.

    A parent that is killed cannot stop its processes, and one that waits for work does not notice:
    its siblings hold the other end of the pipe, too.
    """
    threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end():
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
