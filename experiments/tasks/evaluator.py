"""Evaluation on a whole data set: means over its examples, and metrics pooled over its batches."""

import itertools

import chainer
from chainer import reporter
from chainer.dataset import Converter
from chainer.training import extensions


class Evaluator(extensions.Evaluator):
    """Chainer's evaluator, but for the mean that it takes.

    Chainer's is the mean of the batches' means, in which an example of a small last batch counts
    for more than the others; here batches count by their sizes.

    Args:
        communicator (~chainermn.CommunicatorBase): Of the workers, each of which has a part of the
            data set; ``None`` if there is one.
        *args: As Chainer's.
        **kwargs: As Chainer's.
    """

    def __init__(self, *args, communicator=None, **kwargs):
        super().__init__(*args, **kwargs)
        self._communicator = communicator

    def evaluate(self):
        """Returns the means over the data set, a dict."""
        batches = self.get_iterator('main')
        batches.reset()
        model = self.eval_func or self.get_target('main')
        summary = reporter.DictSummary()
        examples = 0
        for batch in batches:
            observation = {}
            with reporter.report_scope(observation), chainer.no_backprop_mode():
                model(*self.converter(batch, self.device))
            summary.add({key: (value, len(batch)) for key, value in observation.items()})
            examples += len(batch)
        if self._communicator is None:
            return summary.compute_mean()
        means = {key: float(value) for key, value in summary.compute_mean().items()}
        return self._of_all_workers(_weighted_mean, (means, examples))

    def _of_all_workers(self, function, value):
        """Returns to every worker the function of the list of all workers' values."""
        values = self._communicator.gather_obj(value)
        result = function(values) if self._communicator.rank == 0 else None
        return self._communicator.bcast_obj(result)


def _weighted_mean(means_and_examples):
    summary = reporter.DictSummary()
    for means, examples in means_and_examples:
        summary.add({key: (value, examples) for key, value in means.items()})
    return summary.compute_mean()


class _Unconverted(Converter):
    def __call__(self, batch, device):
        return (batch,)


class PooledEvaluator(Evaluator):
    """Base class for metrics of a whole data set that are no means over its batches.

    It pools what :meth:`_evaluate_batch` returns for all batches of all workers, and computes the
    metrics from that. What the target reports for a batch, such as its loss, is averaged as by
    :class:`Evaluator`.

    Args:
        iterator (~chainer.dataset.Iterator): Goes through the data set once.
        target (~chainer.Link): What is evaluated.
        device (~chainer.backend.Device): Where it computes.
        communicator (~chainermn.CommunicatorBase): Of the workers, each of which has a part of the
            data set; ``None`` if there is one.
    """

    def __init__(self, iterator, target, device=None, communicator=None):
        super().__init__(
            iterator,
            target,
            converter=_Unconverted(),
            device=device,
            eval_func=self._evaluate_and_keep,
            communicator=communicator,
        )
        self._parts = []

    def evaluate(self):
        """Returns the means over the data set, and the metrics of all of it, a dict."""
        self._parts = []
        observation = super().evaluate()
        parts, self._parts = self._parts, []
        with reporter.report_scope(observation):
            reporter.report(self._metrics_of_all(parts), self.get_target('main'))
        return observation

    def _evaluate_and_keep(self, batch):
        self._parts.append(self._evaluate_batch(batch))

    def _metrics_of_all(self, parts):
        if self._communicator is None:
            return self._metrics(self._pool(parts))
        return self._of_all_workers(
            lambda everyones: self._metrics(self._pool(list(itertools.chain(*everyones)))), parts
        )

    def _evaluate_batch(self, batch):
        """Runs the target on a list of examples; returns what is to be pooled, on the host."""
        raise NotImplementedError

    def _pool(self, parts):
        """Makes one of what :meth:`_evaluate_batch` returned for all batches, in their order."""
        raise NotImplementedError

    def _metrics(self, pooled):
        """Returns the metrics by their names, Python floats."""
        raise NotImplementedError
