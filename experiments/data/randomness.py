"""The randomness of the data: a pure function of the run's seed, the epoch and the example.

So it does not matter which process loads an example, how far ahead, or whether training was
interrupted before. Chainer's data sets are given only an index; :func:`using_epoch` sets seed and
epoch for the thread that calls it.
"""

import contextlib
import contextvars

import numpy
from chainer.dataset import DatasetMixin

# The first word of the key, so that orders and examples have different streams.
_ORDER, _EXAMPLE = 0, 1

_seed_and_epoch = contextvars.ContextVar('seed_and_epoch', default=(0, 0))


def epoch_order(seed, epoch, size):
    """Returns the order in which an epoch, counted from 0, visits a data set: a permutation."""
    return _generator(seed, _ORDER, epoch).permutation(size)


@contextlib.contextmanager
def using_epoch(seed, epoch):
    """A context in which examples are drawn for this seed and epoch."""
    token = _seed_and_epoch.set((seed, epoch))
    try:
        yield
    finally:
        _seed_and_epoch.reset(token)


def example_rng(index):
    """Returns the generator of an example of :func:`using_epoch`'s seed and epoch, 0 by default."""
    seed, epoch = _seed_and_epoch.get()
    return _generator(seed, _EXAMPLE, epoch, index)


def _generator(seed, *key):
    # Not default_rng((seed, *key)): it pads with zeros, and (seed, 1) would be (seed, 1, 0).
    return numpy.random.default_rng(numpy.random.SeedSequence(seed, spawn_key=key))


class Augmented(DatasetMixin):
    """A data set of examples transformed by a function of an example and :func:`example_rng`."""

    def __init__(self, dataset, transform):
        self._dataset = dataset
        self._transform = transform

    def __len__(self):
        return len(self._dataset)

    def get_example(self, i):
        """Returns the example, as it is in the epoch that is being loaded."""
        # Negative indices name the same examples, so they must have the same draws.
        index = range(len(self))[i]
        return self._transform(self._dataset[index], example_rng(index))
