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
    """Returns the mean softmax cross entropy of a batch, in float32.

    Logits are (n, classes) and classes (n,); or (n, classes, length) and (n, length), and the mean
    is that of all positions, as is the accuracy.
    """
    return functions.softmax_cross_entropy(functions.cast(logits, 'float32'), classes)


def accuracy(logits, classes):
    """Returns the share of a batch that is classified rightly, in float32."""
    return functions.accuracy(functions.cast(logits, 'float32'), classes)


def evaluator(batches, classifier, data, **kwargs):
    """Returns an evaluator of a ``chainer.links.Classifier``.

    Reported keys, with the evaluator's prefix: ``main/loss``, ``main/accuracy`` (top-1) and, where
    to be one of five is an achievement, from 100 classes on, ``main/accuracy_top5``.
    """

    def with_top_five(features, classes):
        classifier(features, classes)
        share = top_k_accuracy(classifier.y.array, classes, 5)
        reporter.report({'accuracy_top5': share}, classifier)

    eval_func = with_top_five if data.classes >= 100 else None
    return Evaluator(batches, classifier, eval_func=eval_func, **kwargs)


TASK = Task(
    metric='accuracy',
    title='test accuracy',
    chain=lambda model, data: links.Classifier(model, loss, accuracy),
    evaluator=evaluator,
)
