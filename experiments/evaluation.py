"""Evaluation on a whole data set, each example counting the same."""

import chainerlp  # noqa: F401 -- it lets Chainer be imported

import chainer
from chainer import reporter
from chainer.training import extensions


class Evaluator(extensions.Evaluator):
    """Chainer's evaluator, but for the mean that it takes.

    Chainer's is the mean of the batches' means, in which an example of a small last batch counts
    for more than the others; here batches count by their sizes.
    """

    def evaluate(self):
        """Returns the means over the data set, a dict."""
        batches = self.get_iterator('main')
        batches.reset()
        model = self.eval_func or self.get_target('main')
        summary = reporter.DictSummary()
        for batch in batches:
            observation = {}
            with reporter.report_scope(observation), chainer.no_backprop_mode():
                model(*self.converter(batch, self.device))
            summary.add({key: (value, len(batch)) for key, value in observation.items()})
        return summary.compute_mean()
