"""Loads batches in two processes until it is stopped; says when it has begun."""

import time

from experiments.datasets.augmented import Augmented
from experiments.datasets.batches import Batches


def pair(example, rng):
    time.sleep(0.01)
    return example, rng.random()


if __name__ == '__main__':
    batches = Batches(Augmented(list(range(100)), pair), 4, workers=2)
    try:
        for _ in range(10000):
            next(batches)
            print('loaded', flush=True)
    finally:
        batches.finalize()
