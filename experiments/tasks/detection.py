"""Detection: its loss and its metric, mean average precision."""

from experiments.models.detections import detect
from experiments.models.multibox_loss import BoxMatcher, multibox_loss
from experiments.tasks import metrics
from experiments.tasks.evaluator import PooledEvaluator
from experiments.tasks.task import Task

import chainer
import numpy
from chainer import backend, reporter
from chainer.dataset import concat_examples
from chainer.datasets import TransformDataset


class TrainChain(chainer.Chain):
    """SSD and its loss.

    It reports ``loss``, and its two parts as ``loss/loc`` (where the objects are) and
    ``loss/conf`` (what they are).

    The objects of a training set are matched by the data set, see
    :class:`~experiments.models.multibox_loss.BoxMatcher`.

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


class DetectionEvaluator(PooledEvaluator):
    """Evaluates an SSD by average precision at an IoU of 0.5.

    Reported keys, with the evaluator's prefix: ``main/map``, ``main/ap/<class>`` for each class of
    which there are objects, and as in training ``main/loss``, ``main/loss/loc`` and
    ``main/loss/conf``, means over the batches by their sizes. As overlaps do not depend on the
    size of an image, it does not matter that images, and boxes with them, are resized to the
    network's.

    Args:
        iterator (~chainer.dataset.Iterator): Of examples of image, boxes, labels and, if there is
            a fourth, which objects are difficult: they need not be found.
        target (TrainChain): The network and its loss.
        class_names (sequence of str): The names of the labels 0, 1, ...
        eleven_point (bool): Which average precision,
            see :func:`~experiments.tasks.metrics.average_precision`.
        **kwargs: ``device`` and ``communicator``, as of
            :class:`~experiments.tasks.evaluator.PooledEvaluator`.
    """

    def __init__(self, iterator, target, class_names, eleven_point=False, **kwargs):
        super().__init__(iterator, target, **kwargs)
        self._class_names = list(class_names)
        self._eleven_point = eleven_point
        self._matcher = BoxMatcher(target.predictor.default_boxes)

    def _evaluate_batch(self, batch):
        target = self.get_target('main')
        matched = concat_examples([self._matcher(example) for example in batch], self.device)
        images, target_locs, targets = matched
        locs, confs = target.predictor(images)
        target.loss(locs, confs, target_locs, targets)
        host = backend.CpuDevice()
        locs, confs = host.send(locs.array), host.send(confs.array)
        return self._pool([self._match(*item) for item in zip(batch, locs, confs)])

    def _match(self, example, locs, confs):
        """Returns the matches of an image, one a class."""
        predictor = self.get_target('main').predictor
        found = detect(locs, confs, predictor.default_boxes, predictor.size)
        _, boxes, labels, *difficult = example
        difficult = difficult[0] if difficult else numpy.zeros(len(boxes), bool)
        matches = []
        for label in range(len(self._class_names)):
            mine, true = found.labels == label, labels == label
            detected = found.boxes[mine], found.scores[mine]
            matches.append(metrics.match_detections(*detected, boxes[true], difficult[true]))
        return matches

    def _pool(self, parts):
        return [metrics.concatenate_matches(of_class) for of_class in zip(*parts)]

    def _metrics(self, matches):
        precisions = [metrics.average_precision(item, self._eleven_point) for item in matches]
        named = zip(self._class_names, precisions)
        return {
            'map': metrics.mean_of_present(precisions),
            **{f'ap/{name}': value for name, value in named if not numpy.isnan(value)},
        }


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
