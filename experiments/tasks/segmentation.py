"""Segmentation, the classification of pixels: its loss and its metric, mean IoU."""

from experiments.tasks import metrics
from experiments.tasks.task import PooledEvaluator, Task

import chainer
import numpy
from chainer import backend, functions, reporter
from chainer.dataset import concat_examples


class TrainChain(chainer.Chain):
    """A network that classifies pixels, and its loss, which it reports as ``loss``.

    Args:
        predictor (~chainer.Link): Maps images to logits (n, classes, h, w).
        class_weight (numpy.ndarray): (classes,): what a pixel of a class counts, such as the median
            of the classes' frequencies divided by its own (Badrinarayanan et al. 2017, section 4);
            ``None`` if all count the same. It is no parameter and in no snapshot.
    """

    def __init__(self, predictor, class_weight=None):
        super().__init__()
        self._class_weight = class_weight
        with self.init_scope():
            self.predictor = predictor

    def forward(self, images, labels):
        """Returns the loss of images (n, 3, h, w) and int32 labels (n, h, w), -1 for void."""
        return self.loss(self.predictor(images), labels)

    def loss(self, logits, labels):
        """Returns and reports the loss of logits (n, classes, h, w), in float32.

        It is the sum over all pixels that are not void of weight times softmax cross entropy,
        divided by their number (2^21 in 12 images of 360x480), and so is the gradient that is cast,
        see :mod:`experiments.tasks.classification`.
        """
        weight = self._class_weight
        if weight is not None:
            weight = self.device.send(numpy.asarray(weight, numpy.float32))
        logits = functions.cast(logits, 'float32')
        loss = functions.softmax_cross_entropy(
            logits, labels, class_weight=weight, ignore_label=metrics.VOID
        )
        reporter.report({'loss': loss}, self)
        return loss


class SegmentationEvaluator(PooledEvaluator):
    """Evaluates by the confusion matrix of all pixels that are not void.

    Reported keys, with the evaluator's prefix: ``main/miou``, ``main/pixel_accuracy``,
    ``main/class_accuracy``, ``main/iou/<class>`` for each class that is in the truth or in a
    prediction, and ``main/loss``, the mean over the batches by their sizes.

    Args:
        iterator (~chainer.dataset.Iterator): Of pairs of image and labels (h, w), -1 for void.
        target (TrainChain): The network and its loss.
        class_names (sequence of str): The names of the labels 0, 1, ...
        **kwargs: As of :class:`~experiments.tasks.task.PooledEvaluator`.
    """

    def __init__(self, iterator, target, class_names, **kwargs):
        super().__init__(iterator, target, **kwargs)
        self._class_names = class_names

    def _evaluate_batch(self, batch):
        target = self.get_target('main')
        images, labels = concat_examples(batch, self.device)
        logits = target.predictor(images)
        target.loss(logits, labels)
        predicted = logits.array.argmax(axis=1)
        counts = metrics.confusion_matrix(predicted, labels, len(self._class_names))
        return backend.CpuDevice().send(counts)

    def _metrics(self, parts):
        counts = numpy.sum(parts, axis=0)
        named = zip(self._class_names, metrics.ious(counts))
        return {
            'miou': metrics.miou(counts),
            'pixel_accuracy': metrics.pixel_accuracy(counts),
            'class_accuracy': metrics.class_accuracy(counts),
            **{f'iou/{name}': float(value) for name, value in named if not numpy.isnan(value)},
        }


TASK = Task(
    metric='miou',
    title='test mIoU',
    chain=lambda model, data: TrainChain(model, data.class_weights),
    evaluator=lambda batches, chain, data, **kwargs: SegmentationEvaluator(
        batches, chain, data.names, **kwargs
    ),
)
