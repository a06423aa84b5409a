"""The iterator over batches, and the processes or threads that load them.

The content of a batch depends on the seed and the iteration alone.
"""

import concurrent.futures
import functools
import itertools
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
import warnings
from concurrent.futures.process import BrokenProcessPool

from experiments.config.errors import ConfigError
from experiments.data.images import collect_warnings
from experiments.data.randomness import epoch_order, using_epoch

from chainer.dataset import Iterator

# Batches that are loaded beyond the one that is asked for.
_AHEAD = 2
# Of a process of a pool: it is sent once.
_dataset = None


class Batches(Iterator):
    """An iterator over batches of a data set, loaded ahead by processes or threads.

    A batch may hold the end of one epoch and the beginning of the next, as with Chainer's
    iterators. The number of the iteration is the whole state: a resumed run gets the same batches
    bit for bit, with any number of workers.

    Processes are for examples that are costly in Python, which runs in one thread at a time; each
    has its own copy of the data set. Threads are for data in memory, and for images that are
    decoded and resized more than computed with: Pillow, and NumPy with large arrays, let other
    threads run meanwhile.

    Args:
        dataset: The data set.
        batch_size (int): Examples of a batch; the last one of a single epoch may have fewer.
        seed (int): The run's seed.
        repeat (bool): Whether epoch follows epoch; otherwise it ends after one.
        shuffle (bool): Whether each epoch has an order of its own; otherwise it is the data set's.
        workers (int): How many load examples, at most one for each CPU; 0 loads them here, when
            they are asked for.
        pool (str): What they are: ``processes`` or ``threads``.

    Attributes:
        examples (int): How many examples this process has got so far.
        asked (float): When the latest batch was asked for, by ``time.perf_counter``.
        waited (float): Seconds that this process has spent waiting for examples, or loading them.
    """

    def __init__(
        self, dataset, batch_size, seed=0, repeat=True, shuffle=True, workers=0, pool='processes'
    ):
        self._executor = None  # first, since an iterator that failed to be made is finalized, too
        if repeat and not len(dataset):
            raise ValueError('given an empty data set, allowed with repeat: at least one example')
        self.dataset = dataset
        self.batch_size = batch_size
        self.repeat = repeat
        self.workers = min(workers, available_cpus())
        self.examples = 0
        self.asked = time.perf_counter()
        self.waited = 0.0
        self._seed = seed
        self._shuffle = shuffle
        self._start_pool = {'processes': _start_processes, 'threads': _start_threads}[pool]
        self._load = None
        self._iteration = 0
        self._loading = {}  # the futures of each iteration that is being loaded
        # A batch needs those of two epochs.
        self._order = functools.lru_cache(2)(lambda epoch: epoch_order(seed, epoch, len(dataset)))
        self._warned = set()

    def __next__(self):
        """Returns the next batch, a list of examples.

        Raises:
            StopIteration: After the last batch of a single epoch.
            ConfigError: If the data set raises one, say because a file is damaged.
            RuntimeError: If an example cannot be loaded, or a worker was killed.
        """
        self.asked = time.perf_counter()
        iteration = self._iteration
        if self._start(iteration) == self._start(iteration + 1):
            raise StopIteration
        try:
            parts = self._parts(iteration)
        except Exception:
            self.finalize()
            raise
        for message in [message for _, messages in parts for message in messages]:
            if message not in self._warned:
                self._warned.add(message)
                warnings.warn(message, stacklevel=2)
        batch = [example for examples, _ in parts for example in examples]
        # Not before: whoever interrupts the waiting finds the iterator as it was.
        self._iteration += 1
        self._loading.pop(iteration, None)
        self.examples += len(batch)
        self.waited += time.perf_counter() - self.asked
        return batch

    def _parts(self, iteration):
        """Returns the parts that the workers have loaded of a batch, and has them load on."""
        if not self.workers:
            wanted = self._epochs_and_indices(iteration)
            return [_load_examples(self.dataset, self._seed, wanted)]
        try:
            for ahead in range(iteration, iteration + 1 + _AHEAD):
                if ahead not in self._loading:
                    self._loading[ahead] = self._submitted(self._epochs_and_indices(ahead))
            return [future.result() for future in self._loading[iteration]]
        except BrokenProcessPool as error:
            raise RuntimeError(
                f'a process that loads examples was killed, or could not start ({error});'
                f' {self.workers} of them may need more memory than there is'
            ) from error

    def _submitted(self, epochs_and_indices):
        if self._executor is None:
            self._executor, self._load = self._start_pool(self.workers, self.dataset)
        count = len(epochs_and_indices)
        size = math.ceil(count / self.workers) or 1
        parts = [epochs_and_indices[i : i + size] for i in range(0, count, size)]
        return [self._executor.submit(self._load, self._seed, part) for part in parts]

    def _start(self, iteration):
        """Returns how many examples come before an iteration, since the first epoch."""
        start = iteration * self.batch_size
        return start if self.repeat else min(start, len(self.dataset))

    def _epochs_and_indices(self, iteration):
        """Returns epoch and index of each example of a batch."""
        positions = range(self._start(iteration), self._start(iteration + 1))
        places = [divmod(position, len(self.dataset)) for position in positions]
        if not self._shuffle:
            return places
        return [(epoch, int(self._order(epoch)[place])) for epoch, place in places]

    def _epochs(self, iteration):
        return self._start(iteration) / max(len(self.dataset), 1)

    @property
    def epoch(self):
        """int: Epochs completed."""
        return int(self.epoch_detail)

    @property
    def is_new_epoch(self):
        """bool: Whether the latest batch completed an epoch."""
        return int(self.previous_epoch_detail or 0) < self.epoch

    @property
    def epoch_detail(self):
        """float: Epochs done, with the share of the one that is going on."""
        return self._epochs(self._iteration)

    @property
    def previous_epoch_detail(self):
        """float: The same before the latest batch; ``None`` before the first one."""
        return self._epochs(self._iteration - 1) if self._iteration else None

    def reset(self):
        """Begins again with the first epoch."""
        self._move(0)

    def serialize(self, serializer):
        """Saves or loads the number of the iteration."""
        self._move(int(serializer('iteration', self._iteration)))

    def _move(self, iteration):
        if iteration != self._iteration:
            self._iteration = iteration
            self._forget()

    def _forget(self):
        for future in itertools.chain(*self._loading.values()):
            future.cancel()
        self._loading.clear()

    def finalize(self):
        """Ends the workers, who finish what they have begun; the next batch starts them anew."""
        if self._executor is not None:
            self._forget()
            executor, self._executor = self._executor, None
            executor.shutdown(wait=True)


def _load_examples(dataset, seed, epochs_and_indices):
    """Returns the examples, a list, and the warnings of replaced ones."""
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


def available_cpus():
    """Returns how many CPUs this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start_threads(workers, dataset):
    """Returns a pool, and what to submit to it: _load_examples without its data set."""
    executor = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix='loader')
    return executor, functools.partial(_load_examples, dataset)


def _start_processes(workers, dataset):
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


def _begin_process(dataset):
    global _dataset
    _dataset = dataset
    # Ctrl-C goes to all processes of a terminal; the one that trains handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _load_in_process(seed, epochs_and_indices):
    return _load_examples(_dataset, seed, epochs_and_indices)


def end_with_parent():
    """Lets this process end at once when its parent does.

    A parent that is killed cannot stop it, and its siblings hold the pipe open.
    """
    threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end():
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
