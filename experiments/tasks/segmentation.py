"""Segmentation, the classification of pixels: its loss and its metric, mean IoU."""

from experiments.tasks.miou import VOID
from experiments.tasks.segmentation_evaluator import SegmentationEvaluator
from experiments.tasks.task import Task

import chainer
import numpy
from chainer import functions, reporter


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
        """Returns the loss of a batch, in float32.

        Args:
            images (:ref:`ndarray`): (n, 3, h, w).
            labels (:ref:`ndarray`): (n, h, w) in int32, -1 for void.
        """
        return self.loss(self.predictor(images), labels)

    def loss(self, logits, labels):
        """Returns and reports the loss of what the network gave.

        It is the sum over all pixels that are not void of weight times softmax cross entropy,
        divided by their number, and so is its gradient: with 12 images of 360x480 by 2^21, where
        the smallest number of float16 is 2^-24. What the cast loses of it only a scale of the loss
        can bring back, see :mod:`experiments.tasks.classification`.
        """
        weight = self._class_weight
        if weight is not None:
            weight = self.device.send(numpy.asarray(weight, numpy.float32))
        logits = functions.cast(logits, 'float32')
        loss = functions.softmax_cross_entropy(
            logits, labels, class_weight=weight, ignore_label=VOID
        )
        reporter.report({'loss': loss}, self)
        return loss


def _evaluator(batches, chain, data, device, communicator):
    names = data.class_names or [str(number) for number in range(data.classes)]
    return SegmentationEvaluator(batches, chain, names, device=device, communicator=communicator)


TASK = Task(
    metric='miou',
    title='test mIoU',
    chain=lambda model, data: TrainChain(model, data.class_weights),
    evaluator=_evaluator,
)
