"""The batches of a run: iterators over its data.

What they hold follows from the seed and the iteration alone, whoever loads them.
"""

import chainerlp  # noqa: F401 -- it lets Chainer be imported
from experiments.data.batches import Batches


def to_train(examples, batch_size, config):
    """Returns batches without end, every epoch in an order of its own.

    Args:
        examples (~chainer.dataset.DatasetMixin): One worker's share of the data.
        batch_size (int): Examples of a batch.
        config (experiments.config.Config): The seed, and how examples are loaded.
    """
    return Batches(examples, batch_size, config.seed, **config.loading.model_dump())


def to_evaluate(examples, config):
    """Returns batches of all examples, each once, in their order.

    Args:
        examples (~chainer.dataset.DatasetMixin): One worker's share of the data.
        config (experiments.config.Config): As for :func:`to_train`.
    """
    return Batches(
        examples,
        config.train.batch_size,
        config.seed,
        repeat=False,
        shuffle=False,
        **config.loading.model_dump(),
    )
