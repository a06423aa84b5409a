"""Evaluation by metrics of a whole data set that are no means over its batches."""

from experiments.evaluation import Evaluator

from chainer import reporter
from chainer.dataset import Converter


class _Unconverted(Converter):
    def __call__(self, batch, device):
        return (batch,)


class PooledEvaluator(Evaluator):
    """Base class: pools something about all batches of all workers, and computes metrics from it.

    What the target reports for a batch, such as its loss, is averaged as
    :class:`~experiments.evaluation.Evaluator` does it.

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
            eval_func=self._see,
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

    def _see(self, batch):
        self._parts.append(self._look_at(batch))

    def _metrics_of_all(self, parts):
        communicator = self._communicator
        if communicator is None:
            return self._metrics(self._pool(parts))
        everyones = communicator.gather_obj(parts)
        metrics = None
        if communicator.rank == 0:
            metrics = self._metrics(self._pool([part for parts in everyones for part in parts]))
        return communicator.bcast_obj(metrics)

    def _look_at(self, batch):
        """Runs the target on a list of examples; returns what is to be pooled, on the host."""
        raise NotImplementedError

    def _pool(self, parts):
        """Makes one of what :meth:`_look_at` returned for all batches, in their order."""
        raise NotImplementedError

    def _metrics(self, pooled):
        """Returns the metrics by their names, Python floats."""
        raise NotImplementedError
