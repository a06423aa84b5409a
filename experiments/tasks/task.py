"""What a task is: the chain to train, the evaluator and the metric; and evaluation of all data."""

import dataclasses
import itertools
from typing import Callable

import chainer
from chainer import reporter
from chainer.dataset import converter
from chainer.training import extensions


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
            :class:`~experiments.data.Data` and, as keywords, ``device`` and ``communicator`` (of
            the workers, or ``None``); returns a trainer extension that reports the metric and the
            loss.
        examples (callable): Takes the data set to train with and the chain; returns the data set
            of what the chain is given.
    """

    metric: str
    title: str
    chain: Callable
    evaluator: Callable
    examples: Callable = lambda train, chain: train

    @property
    def key(self):
        """str: The metric's key in a log."""
        return f'validation/main/{self.metric}'


class Evaluator(extensions.Evaluator):
    """Chainer's evaluator, but batches count by their sizes in the mean that it takes.

    With a communicator of several workers, each has a part of the data set. The other arguments are
    Chainer's.
    """

    def __init__(self, *args, communicator=None, **kwargs):
        super().__init__(*args, **kwargs)
        self._communicator = communicator

    def evaluate(self):
        """Returns the means over the data set, a dict."""
        batches = self.get_iterator('main')
        batches.reset()
        model = self.eval_func or self.get_target('main')
        means = []
        for batch in batches:
            observation = {}
            with reporter.report_scope(observation), chainer.no_backprop_mode():
                model(*self.converter(batch, self.device))
            means.append((observation, len(batch)))
        mean = _weighted_mean(means)
        if self._communicator is None:
            return mean
        mean = {key: float(value) for key, value in mean.items()}
        return self._of_all_workers(_weighted_mean, (mean, sum(size for _, size in means)))

    def _of_all_workers(self, function, value):
        """Returns to every worker the function of the list of all workers' values."""
        if self._communicator is None:
            return function([value])
        values = self._communicator.gather_obj(value)
        result = function(values) if self._communicator.rank == 0 else None
        return self._communicator.bcast_obj(result)


def _weighted_mean(values_and_weights):
    summary = reporter.DictSummary()
    for values, weight in values_and_weights:
        summary.add({key: (value, weight) for key, value in values.items()})
    return summary.compute_mean()


@converter()
def _unconverted(batch, device):
    return (batch,)


class PooledEvaluator(Evaluator):
    """Base class for metrics of a whole data set that are no means over its batches.

    They are computed from what :meth:`_evaluate_batch` returns for all batches of all workers. What
    the target reports for a batch, such as its loss, is averaged as by :class:`Evaluator`, whose
    ``device`` and ``communicator`` it takes as well.
    """

    def __init__(self, iterator, target, **kwargs):
        super().__init__(
            iterator,
            target,
            converter=_unconverted,
            eval_func=lambda batch: self._parts.append(self._evaluate_batch(batch)),
            **kwargs,
        )
        self._parts = []

    def evaluate(self):
        """Returns the means over the data set, and the metrics of all of it, a dict."""
        self._parts = []
        observation = super().evaluate()
        parts, self._parts = self._parts, []
        metrics = self._of_all_workers(
            lambda everyones: self._metrics(list(itertools.chain(*everyones))), parts
        )
        with reporter.report_scope(observation):
            reporter.report(metrics, self.get_target('main'))
        return observation

    def _evaluate_batch(self, batch):
        """Runs the target on a list of examples; returns what the metrics are of, on the host."""
        raise NotImplementedError

    def _metrics(self, parts):
        """Returns the metrics, Python floats by name, of a list of what all batches gave."""
        raise NotImplementedError
