"""Detection: its loss and its metric, mean average precision."""

from experiments.models.box_matching import BoxMatcher
from experiments.models.multibox_loss import multibox_loss
from experiments.tasks.detection_evaluator import DetectionEvaluator
from experiments.tasks.task import Task

import chainer
from chainer import reporter
from chainer.datasets import TransformDataset


class TrainChain(chainer.Chain):
    """SSD and its loss.

    It reports ``loss``, and its two parts as ``loss/loc`` (where the objects are) and
    ``loss/conf`` (what they are).

    The objects of a training set are matched by the data set, with
    :class:`~experiments.models.box_matching.BoxMatcher`, see there why; its batches are
    concatenated as usual.

    Args:
        predictor (experiments.models.ssd.SSD): The network.
    """

    def __init__(self, predictor):
        super().__init__()
        with self.init_scope():
            self.predictor = predictor

    def forward(self, images, target_locs, targets):
        """Returns the loss of a batch, in float32.

        Args:
            images (:ref:`ndarray`): (n, 3, h, w).
            target_locs (:ref:`ndarray`): (n, boxes, 4) in float32, of the matcher.
            targets (:ref:`ndarray`): (n, boxes) in int32, of the matcher.
        """
        locs, confs = self.predictor(images)
        return self.loss(locs, confs, target_locs, targets)

    def loss(self, locs, confs, target_locs, targets):
        """Returns and reports the loss of what the network gave."""
        loc, conf = multibox_loss(locs, confs, target_locs, targets)
        loss = loc + conf
        reporter.report({'loss': loss, 'loss/loc': loc, 'loss/conf': conf}, self)
        return loss


def _evaluator(batches, chain, data, device, communicator):
    names = data.class_names or [str(number) for number in range(data.classes)]
    return DetectionEvaluator(
        batches, chain, names, data.eleven_point, device=device, communicator=communicator
    )


def _matched(train, chain):
    return TransformDataset(train, BoxMatcher(chain.predictor.default_boxes))


TASK = Task(
    metric='map',
    title='test mAP',
    chain=lambda model, data: TrainChain(model),
    evaluator=_evaluator,
    examples=_matched,
)
