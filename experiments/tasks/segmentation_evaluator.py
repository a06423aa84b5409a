"""Evaluation of a network that classifies pixels on a whole data set."""

from experiments.tasks import miou
from experiments.tasks.pooled_evaluator import PooledEvaluator

import numpy
from chainer import backend
from chainer.dataset import concat_examples


class SegmentationEvaluator(PooledEvaluator):
    """Evaluates by the confusion matrix of all pixels that are not void.

    Reported keys, with the evaluator's prefix: ``main/miou``, ``main/pixel_accuracy``,
    ``main/class_accuracy``, ``main/iou/<class>`` for each class that is in the truth or in a
    prediction, and ``main/loss``, the mean over the batches by their sizes.

    Args:
        iterator (~chainer.dataset.Iterator): Of pairs of image and labels (h, w), -1 for void.
        target (experiments.tasks.segmentation.TrainChain): The network and its loss.
        class_names (sequence of str): The names of the labels 0, 1, ...
        **kwargs: ``device`` and ``communicator``, as of
            :class:`~experiments.tasks.pooled_evaluator.PooledEvaluator`.
    """

    def __init__(self, iterator, target, class_names, **kwargs):
        super().__init__(iterator, target, **kwargs)
        self._class_names = list(class_names)

    def _look_at(self, batch):
        target = self.get_target('main')
        images, labels = concat_examples(batch, self.device)
        logits = target.predictor(images)
        target.loss(logits, labels)
        counts = miou.confusion(logits.array.argmax(axis=1), labels, len(self._class_names))
        return backend.CpuDevice().send(counts)

    def _pool(self, parts):
        return numpy.sum(parts, axis=0)

    def _metrics(self, counts):
        named = zip(self._class_names, miou.ious(counts))
        return {
            'miou': miou.miou(counts),
            'pixel_accuracy': miou.pixel_accuracy(counts),
            'class_accuracy': miou.class_accuracy(counts),
            **{f'iou/{name}': float(value) for name, value in named if not numpy.isnan(value)},
        }
