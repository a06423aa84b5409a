"""Top-k accuracy: how often the right class is among the k that a classifier thinks likeliest."""

from experiments.evaluation import Evaluator

from chainer import backend, reporter


def top_k_accuracy(logits, classes, k):
    """Returns the share of a batch whose right class is among the k highest logits.

    Of equal logits the class of lower number is the likelier, as for ``argmax``; one that is not a
    number is likelier than any, so that a network that diverged is never right.

    Args:
        logits (:ref:`ndarray`): (n, classes).
        classes (:ref:`ndarray`): (n,), the right ones.
        k (int): Less than the number of classes: k of k are always right.

    Returns:
        :ref:`ndarray`: The share, a float32 scalar on the device of the logits.

    Raises:
        ValueError: If there are not more than k classes.
    """
    if not 0 < k < logits.shape[1]:
        raise ValueError(f'top {k} of {logits.shape[1]} classes, must be fewer than there are')
    xp = backend.get_array_module(logits)
    numbers = xp.arange(logits.shape[1])
    right = logits[xp.arange(len(logits)), classes][:, None]
    likelier = ~(logits <= right) | ((logits == right) & (numbers < classes[:, None]))
    return (likelier.sum(axis=1) < k).mean(dtype='float32')


class TopFiveEvaluator(Evaluator):
    """Evaluates a classifier, and reports its top-5 accuracy beside what it reports itself.

    Reported keys: with those of ``chainer.links.Classifier``, ``main/loss``, ``main/accuracy``
    (top-1) and ``main/accuracy_top5``, with the evaluator's prefix.

    Args:
        *args: As of :class:`~experiments.evaluation.Evaluator`; the target must leave the logits in
            its attribute ``y``, as Chainer's classifier does.
        **kwargs: As there.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.eval_func = self._classify

    def _classify(self, features, classes):
        target = self.get_target('main')
        target(features, classes)
        share = top_k_accuracy(target.y.array, classes, 5)
        reporter.report({'accuracy_top5': share}, target)
