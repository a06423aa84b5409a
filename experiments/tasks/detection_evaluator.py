"""Evaluation of a detector on a whole data set."""

from experiments.models.box_matching import BoxMatcher
from experiments.models.multibox_decoding import detections
from experiments.tasks import voc_ap
from experiments.tasks.pooled_evaluator import PooledEvaluator

import numpy
from chainer import backend
from chainer.dataset import concat_examples


class DetectionEvaluator(PooledEvaluator):
    """Evaluates an SSD by average precision at an overlap of 0.5.

    Reported keys, with the evaluator's prefix: ``main/map``, ``main/ap/<class>`` for each class of
    which there are objects, and as in training ``main/loss``, ``main/loss/loc`` and
    ``main/loss/conf``, means over the batches by their sizes. As overlaps do not depend on the
    size of an image, it does not matter that images, and boxes with them, are resized to the
    network's.

    Args:
        iterator (~chainer.dataset.Iterator): Of examples of image, boxes, labels and, if there is
            a fourth, which objects are difficult: they need not be found.
        target (experiments.tasks.detection.TrainChain): The network and its loss.
        class_names (sequence of str): The names of the labels 0, 1, ...
        eleven_point (bool): Which average precision,
            see :func:`~experiments.tasks.voc_ap.average_precision`.
        **kwargs: ``device`` and ``communicator``, as of
            :class:`~experiments.tasks.pooled_evaluator.PooledEvaluator`.
    """

    def __init__(self, iterator, target, class_names, eleven_point=False, **kwargs):
        super().__init__(iterator, target, **kwargs)
        self._class_names = list(class_names)
        self._eleven_point = eleven_point
        self._matcher = BoxMatcher(target.predictor.default_boxes)

    def _look_at(self, batch):
        target = self.get_target('main')
        matched = concat_examples([self._matcher(example) for example in batch], self.device)
        images, target_locs, targets = matched
        locs, confs = target.predictor(images)
        target.loss(locs, confs, target_locs, targets)
        host = backend.CpuDevice()
        locs, confs = host.send(locs.array), host.send(confs.array)
        return self._pool([self._judge(*item) for item in zip(batch, locs, confs)])

    def _judge(self, example, locs, confs):
        """Returns the verdicts of an image, one a class."""
        predictor = self.get_target('main').predictor
        found = detections(locs, confs, predictor.default_boxes, predictor.size)
        _, boxes, labels, *difficult = example
        difficult = difficult[0] if difficult else numpy.zeros(len(boxes), bool)
        verdicts = []
        for label in range(len(self._class_names)):
            mine, true = found.labels == label, labels == label
            verdicts.append(
                voc_ap.judge(found.boxes[mine], found.scores[mine], boxes[true], difficult[true])
            )
        return verdicts

    def _pool(self, parts):
        return [voc_ap.joined(of_class) for of_class in zip(*parts)]

    def _metrics(self, verdicts):
        precisions = [voc_ap.average_precision(item, self._eleven_point) for item in verdicts]
        named = zip(self._class_names, precisions)
        return {
            'map': voc_ap.mean_average_precision(precisions),
            **{f'ap/{name}': value for name, value in named if not numpy.isnan(value)},
        }
