"""Where the data's randomness comes from: the run's seed, the epoch, and the example; no state.

Which example comes when, and how it is augmented, are pure functions of those three. So it does not
matter which process loads an example, how far ahead, or whether training was interrupted before.

Chainer's data sets know only the index that they are asked for. Whoever loads examples says in
which epoch, with :func:`drawing`; it holds for the thread that says so, through any data set that
wraps another, such as a worker's share.
"""

import contextlib
import contextvars

import numpy

# The first word of the key: no order of an epoch has the draws of an example.
_ORDER, _EXAMPLE = 0, 1

_seed_and_epoch = contextvars.ContextVar('seed_and_epoch', default=(0, 0))


def order(seed, epoch, size):
    """Returns the order in which an epoch visits a data set.

    Args:
        seed (int): The run's seed.
        epoch (int): The epoch, from 0.
        size (int): Examples of the data set.

    Returns:
        numpy.ndarray: A permutation of 0 to ``size`` - 1.
    """
    return _generator(seed, _ORDER, epoch).permutation(size)


@contextlib.contextmanager
def drawing(seed, epoch):
    """Says for which seed and in which epoch the examples that are loaded within are drawn."""
    token = _seed_and_epoch.set((seed, epoch))
    try:
        yield
    finally:
        _seed_and_epoch.reset(token)


def of_example(index):
    """Returns the generator of one example in the epoch that :func:`drawing` said, or else in 0.

    Args:
        index (int): The example's index in the whole data set.

    Returns:
        numpy.random.Generator: Always in the same state.
    """
    seed, epoch = _seed_and_epoch.get()
    return _generator(seed, _EXAMPLE, epoch, index)


def _generator(seed, *key):
    # Not default_rng((seed, *key)): it pads with zeros, and (seed, 1) would be (seed, 1, 0).
    return numpy.random.default_rng(numpy.random.SeedSequence(seed, spawn_key=key))
