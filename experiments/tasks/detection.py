"""Detection: SSD's loss (Liu et al. 2016, section 2.2) and its metric, mean average precision."""

from experiments.models.ssd_boxes import BACKGROUND, BoxMatcher, detect
from experiments.tasks import metrics
from experiments.tasks.task import PooledEvaluator, Task

import chainer
import numpy
from chainer import backend, functions, reporter
from chainer.dataset import concat_examples
from chainer.datasets import TransformDataset

_NEGATIVES_PER_POSITIVE = 3


def multibox_loss(locs, confs, target_locs, targets):
    """Returns both parts of the loss, in float32: equations 1 to 3 with alpha = 1.

    Both are sums divided by the number of matched default boxes (positives) in the batch, or by 1
    if there is none. The network's outputs are cast to float32 first, see
    :mod:`experiments.tasks.classification`. Nothing here waits for a device.

    Args:
        locs (~chainer.Variable): (n, boxes, 4), of the network.
        confs (~chainer.Variable): (n, boxes, classes + 1), of the network.
        target_locs (:ref:`ndarray`): (n, boxes, 4) in float32, of the
            :class:`~experiments.models.ssd_boxes.BoxMatcher`.
        targets (:ref:`ndarray`): (n, boxes) in int32, likewise.

    Returns:
        tuple of ~chainer.Variable: Smooth L1 loss of the positives' locations, and softmax cross
        entropy of positives and mined negatives.
    """
    xp = backend.get_array_module(targets)
    positive = targets != BACKGROUND
    scale = xp.asarray(1.0 / xp.maximum(positive.sum(), 1), numpy.float32)
    loc = functions.huber_loss(functions.cast(locs, 'float32'), target_locs, 1.0, reduce='no')
    loc = functions.sum(loc * positive.astype(numpy.float32)[..., None])
    confs = functions.reshape(functions.cast(confs, 'float32'), (-1, confs.shape[2]))
    conf = functions.softmax_cross_entropy(confs, targets.ravel(), reduce='no')
    chosen = positive | hard_negatives(conf.array.reshape(targets.shape), positive)
    conf = functions.sum(conf * chosen.ravel().astype(numpy.float32))
    return loc * scale, conf * scale


def hard_negatives(losses, positive):
    """Chooses of each image the negatives of highest loss, three for each positive.

    Args:
        losses (:ref:`ndarray`): (n, boxes): of each box as what it is.
        positive (:ref:`ndarray`): (n, boxes), bool.

    Returns:
        :ref:`ndarray`: (n, boxes), bool; all negatives if there are fewer.
    """
    xp = backend.get_array_module(losses)
    order = xp.argsort(xp.where(positive, -numpy.inf, losses), axis=1)[:, ::-1]
    count = _NEGATIVES_PER_POSITIVE * positive.sum(axis=1, keepdims=True)
    chosen = xp.empty(positive.shape, bool)
    chosen[xp.arange(len(order))[:, None], order] = xp.arange(order.shape[1]) < count
    return chosen & ~positive


class TrainChain(chainer.Chain):
    """An SSD and its loss: it reports ``loss``, and its parts as ``loss/loc`` and ``loss/conf``."""

    def __init__(self, predictor):
        super().__init__()
        with self.init_scope():
            self.predictor = predictor

    def forward(self, images, target_locs, targets):
        """Returns the loss of a batch of images (n, 3, h, w), in float32.

        ``target_locs`` and ``targets`` are those of :func:`multibox_loss`.
        """
        return self.loss(*self.predictor(images), target_locs, targets)

    def loss(self, locs, confs, target_locs, targets):
        """Returns and reports the loss of the network's outputs."""
        loc, conf = multibox_loss(locs, confs, target_locs, targets)
        loss = loc + conf
        reporter.report({'loss': loss, 'loss/loc': loc, 'loss/conf': conf}, self)
        return loss


class DetectionEvaluator(PooledEvaluator):
    """Evaluates an SSD by average precision at an IoU of 0.5.

    Reported keys, with the evaluator's prefix: ``main/map``, ``main/ap/<class>`` for each class of
    which there are objects, and as in training ``main/loss``, ``main/loss/loc`` and
    ``main/loss/conf``, means over the batches by their sizes.

    Args:
        iterator (~chainer.dataset.Iterator): Of examples of image, boxes, labels and, if there is
            a fourth, which objects are difficult: they need not be found.
        target (TrainChain): The network and its loss.
        class_names (sequence of str): The names of the labels 0, 1, ...
        eleven_point (bool): As of :func:`~experiments.tasks.metrics.average_precision`.
        **kwargs: As of :class:`~experiments.tasks.task.PooledEvaluator`.
    """

    def __init__(self, iterator, target, class_names, eleven_point=False, **kwargs):
        super().__init__(iterator, target, **kwargs)
        self._class_names = class_names
        self._eleven_point = eleven_point
        self._matcher = BoxMatcher(target.predictor.default_boxes)

    def _evaluate_batch(self, batch):
        target = self.get_target('main')
        matched = [self._matcher(example) for example in batch]
        images, target_locs, targets = concat_examples(matched, self.device)
        locs, confs = target.predictor(images)
        target.loss(locs, confs, target_locs, targets)
        locs, confs = backend.CpuDevice().send((locs.array, confs.array))
        return _by_class([self._match(*item) for item in zip(batch, locs, confs)])

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

    def _metrics(self, parts):
        matches = _by_class(parts)
        precisions = [metrics.average_precision(item, self._eleven_point) for item in matches]
        named = zip(self._class_names, precisions)
        return {
            'map': metrics.mean_of_present(precisions),
            **{f'ap/{name}': value for name, value in named if not numpy.isnan(value)},
        }


def _by_class(parts):
    """Returns the matches of each class, of lists of the matches of each class."""
    return [metrics.concatenate_matches(of_class) for of_class in zip(*parts)]


TASK = Task(
    metric='map',
    title='test mAP',
    chain=lambda model, data: TrainChain(model),
    evaluator=lambda batches, chain, data, **kwargs: DetectionEvaluator(
        batches, chain, data.names, data.eleven_point, **kwargs
    ),
    examples=lambda train, chain: TransformDataset(
        train, BoxMatcher(chain.predictor.default_boxes)
    ),
)
