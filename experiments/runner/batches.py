"""The batches of a run: iterators over its data.

What follows from the seed and the iteration alone need not be in a snapshot; what does not, an
iterator serializes.
"""

import chainerlp  # noqa: F401 -- it lets Chainer be imported

from chainer import iterators


def to_train(examples, batch_size):
    """Returns batches without end, every epoch in an order of its own.

    The order is drawn from NumPy's global generator when an epoch ends, which a run seeds before
    each iteration (:class:`~experiments.runner.seeding.Seeding`).

    Args:
        examples (~chainer.dataset.DatasetMixin): One worker's share of the data.
        batch_size (int): Examples of a batch.
    """
    return iterators.SerialIterator(examples, batch_size)


def to_evaluate(examples, batch_size):
    """Returns batches of all examples, each once, in their order.

    Args:
        examples (~chainer.dataset.DatasetMixin): One worker's share of the data.
        batch_size (int): Examples of a batch.
    """
    return iterators.SerialIterator(examples, batch_size, repeat=False, shuffle=False)
