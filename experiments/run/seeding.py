"""Seeding: every random number of a run is a function of its seed and the iteration.

Chainer's snapshots do not hold the states of the global generators. They need not: the generators
are seeded anew before each iteration, and a resumed training draws what it would have drawn.
"""

import contextlib
import random

import numpy


class Seeding:
    """Seeds the global generators of Python, NumPy and CuPy before an iteration.

    Args:
        seed (int): The run's seed.
        device (~chainer.backend.Device): Where the run computes.
    """

    def __init__(self, seed, device):
        self._seed = seed
        self._device = device

    def __call__(self, iteration):
        """Seeds them.

        Args:
            iteration (int): How many iterations are over.
        """
        both = self._seed * 2**31 + iteration  # seeds are below 2^32, and CuPy takes 64 bits
        random.seed(both)
        numpy.random.seed([self._seed, iteration])
        if self._device.xp is not numpy:
            self._device.xp.random.seed(both)


@contextlib.contextmanager
def seeded(seed, device):
    """Seeds the global generators for the building of a model; those on the host get back later.

    Args:
        seed (int): The run's seed.
        device (~chainer.backend.Device): Where the run computes.
    """
    of_python, of_numpy = random.getstate(), numpy.random.get_state()
    random.seed(seed)
    numpy.random.seed(seed)
    if device.xp is not numpy:
        device.xp.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(of_python)
        numpy.random.set_state(of_numpy)
