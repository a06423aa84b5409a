"""Classification: its loss and its metric, the same for every dtype and every way of scaling.

Logits are cast to float32 first: a softmax in float16 would be off before any gradient is. On the
way back that cast rounds the gradient to float16, once, before the last layer sees it. What is lost
there no layer's scale can bring back, only the scale of the loss: Chainer's loss scale, or the
``initial_scale`` of layer-wise scaling, which is 1 by default as in unscaled training. It belongs
to no layer and so is in no method's underflow rate.
"""

from experiments.evaluation import Evaluator
from experiments.tasks.task import Task
from experiments.tasks.top_k import TopFiveEvaluator

from chainer import functions, links


def loss(logits, classes):
    """Returns the mean softmax cross entropy of a batch, in float32."""
    return functions.softmax_cross_entropy(functions.cast(logits, 'float32'), classes)


def accuracy(logits, classes):
    """Returns the share of a batch that is classified rightly, in float32."""
    return functions.accuracy(functions.cast(logits, 'float32'), classes)


def _chain(model, data):
    return links.Classifier(model, loss, accuracy)


def _evaluator(batches, chain, data, device, communicator):
    # Among few classes, to be one of five is no achievement.
    kind = TopFiveEvaluator if data.classes >= 100 else Evaluator
    return kind(batches, chain, device=device, communicator=communicator)


TASK = Task(metric='accuracy', title='test accuracy', chain=_chain, evaluator=_evaluator)
