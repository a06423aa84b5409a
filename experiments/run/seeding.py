"""Seeding: every random number of a run is a function of its seed and the iteration.

Chainer's snapshots do not hold the states of the global generators. They need not: the generators
are seeded anew before each iteration, and a resumed training draws what it would have drawn.
"""

import contextlib
import random

import numpy


class Seeding:
    """Seeds the generators of Python, NumPy and a GPU, by the run's seed, before an iteration."""

    def __init__(self, seed, device):
        self._seed = seed
        self._device = device

    def __call__(self, iteration):
        """Seeds them; ``iteration`` is how many are over."""
        # Seeds are below 2^32, and CuPy takes 64 bits.
        _seed(self._seed * 2**31 + iteration, [self._seed, iteration], self._device)


@contextlib.contextmanager
def seeded(seed, device):
    """Seeds the generators for the building of a model; those on the host get back later."""
    of_python, of_numpy = random.getstate(), numpy.random.get_state()
    _seed(seed, seed, device)
    try:
        yield
    finally:
        random.setstate(of_python)
        numpy.random.set_state(of_numpy)


def _seed(seed, of_numpy, device):
    random.seed(seed)
    numpy.random.seed(of_numpy)
    if device.xp is not numpy:
        device.xp.random.seed(seed)
