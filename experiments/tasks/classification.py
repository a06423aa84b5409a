"""Classification: its loss and its metric, the same for every dtype and every way of scaling.

Logits are cast to float32 first, since a softmax in float16 would be inexact. In the backward pass
that cast rounds the gradient to float16. What is lost there only a scale of the loss can bring
back: Chainer's loss scale, or the ``initial_scale`` of layer-wise scaling. It belongs to no layer
and so is in no method's underflow rate.
"""

from experiments.tasks.metrics import top_k_accuracy
from experiments.tasks.task import Evaluator, Task

from chainer import functions, links, reporter


def loss(logits, classes):
    """Returns the mean softmax cross entropy of a batch, in float32."""
    return functions.softmax_cross_entropy(functions.cast(logits, 'float32'), classes)


def accuracy(logits, classes):
    """Returns the share of a batch that is classified rightly, in float32."""
    return functions.accuracy(functions.cast(logits, 'float32'), classes)


class TopFiveEvaluator(Evaluator):
    """Evaluates a ``chainer.links.Classifier``.

    Reported keys, with the evaluator's prefix: ``main/loss``, ``main/accuracy`` (top-1) and
    ``main/accuracy_top5``. Arguments are those of :class:`~experiments.tasks.task.Evaluator`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.eval_func = self._classify

    def _classify(self, features, classes):
        target = self.get_target('main')
        target(features, classes)
        share = top_k_accuracy(target.y.array, classes, 5)
        reporter.report({'accuracy_top5': share}, target)


def _evaluator(batches, chain, data, **kwargs):
    # Among few classes, to be one of five is no achievement.
    return (TopFiveEvaluator if data.classes >= 100 else Evaluator)(batches, chain, **kwargs)


TASK = Task(
    metric='accuracy',
    title='test accuracy',
    chain=lambda model, data: links.Classifier(model, loss, accuracy),
    evaluator=_evaluator,
)
