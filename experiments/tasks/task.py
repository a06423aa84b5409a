"""The protocol of a task: its training chain, its evaluator and its metric."""

import dataclasses
from typing import Callable

from chainer.dataset import concat_examples


@dataclasses.dataclass(frozen=True)
class Task:
    """What a training needs to know of a task.

    Attributes:
        metric (str): What is to be maximized on the test set; the evaluator reports it
            as ``validation/main/METRIC``, a fraction, on every worker.
        title (str): The metric in words, for an axis.
        chain (callable): Takes a model and a :class:`~experiments.data.Data`; returns the chain
            to train, which takes a batch, reports ``loss`` and returns it.
        evaluator (callable): Takes batches (an iterator that ends), the chain, the
            :class:`~experiments.data.Data`, a device and the communicator of the workers or
            ``None``; returns a trainer extension that reports the metric and, if it has one,
            ``validation/main/loss``.
        examples (callable): Takes the data set to train with and the chain; returns the data set
            of what the chain is given.
        converter (callable): Makes the chain's arguments of a list of examples.
    """

    metric: str
    title: str
    chain: Callable
    evaluator: Callable
    examples: Callable = lambda train, chain: train
    converter: Callable = concat_examples

    @property
    def key(self):
        """str: The metric's key in a log."""
        return f'validation/main/{self.metric}'
