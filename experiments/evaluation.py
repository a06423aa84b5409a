"""Evaluation on a whole data set, each example counting the same."""

import chainerlp  # noqa: F401 -- it lets Chainer be imported

import chainer
from chainer import reporter
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
        return self._mean_over_workers(means, examples)

    def _mean_over_workers(self, means, examples):
        everyones = self._communicator.gather_obj((means, examples))
        mean = None
        if self._communicator.rank == 0:
            summary = reporter.DictSummary()
            for means, examples in everyones:
                summary.add({key: (value, examples) for key, value in means.items()})
            mean = summary.compute_mean()
        return self._communicator.bcast_obj(mean)
