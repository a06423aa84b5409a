"""Evaluates on the share of a data set that each worker has, and on all of it.

Run by test_evaluators.py under mpiexec, or alone. Prints what came of both.
"""

import json

from experiments.models.ssd_boxes import Grid, default_boxes
from experiments.run import multi_node
from experiments.tasks import detection, segmentation
from experiments.tasks.detection import DetectionEvaluator
from experiments.tasks.segmentation import SegmentationEvaluator

import chainer
import chainermn
import numpy

EXAMPLES = 7


class KnownDetector(chainer.Chain):
    """Finds what is written into the image, in 16 default boxes of 8x8."""

    size = 32
    default_boxes = default_boxes([Grid(4, 8, 8.0, 8.0, ())])

    def forward(self, images):
        logits = images[:, :, :4, :4].reshape(len(images), 3, 16).transpose(0, 2, 1)
        logits = chainer.Variable(numpy.repeat(logits, 2, axis=1))  # two boxes a cell
        return chainer.Variable(numpy.zeros((len(images), 32, 4), numpy.float32)), logits


class KnownSegmenter(chainer.Chain):
    """Takes the channels of the image for logits."""

    def forward(self, images):
        return chainer.Variable(images)


def detection_data():
    rng = numpy.random.RandomState(0)
    corners = numpy.array([[y, x, y + 8, x + 8] for y in range(0, 32, 8) for x in range(0, 32, 8)])
    for count in [0, 1, 2, 3, 1, 2, 4]:
        cells = rng.permutation(16)[:count]
        labels = rng.randint(0, 2, count).astype(numpy.int32)
        image = rng.randn(3, 32, 32).astype(numpy.float32)
        image[0, cells // 4, cells % 4] -= 1  # some of the objects are found
        boxes = corners[cells].astype(numpy.float32)
        yield image, boxes, labels, rng.rand(count) < 0.2


def segmentation_data():
    rng = numpy.random.RandomState(0)
    for _ in range(EXAMPLES):
        yield rng.randn(3, 5, 6).astype(numpy.float32), rng.randint(-1, 3, (5, 6))


def evaluate(make, data, communicator):
    # Two a batch; alone the batches are others, and so is the mean of a loss that is divided by the
    # positives of a batch, but none of the metrics.
    iterator = chainer.iterators.SerialIterator(data, 2, repeat=False, shuffle=False)
    values = make(iterator, communicator)()
    return {key: float(value) for key, value in values.items()}


def detector(iterator, communicator):
    target = detection.TrainChain(KnownDetector())
    return DetectionEvaluator(iterator, target, ['a', 'b'], communicator=communicator)


def segmenter(iterator, communicator):
    target = segmentation.TrainChain(KnownSegmenter())
    return SegmentationEvaluator(iterator, target, ['a', 'b', 'c'], communicator=communicator)


def main():
    communicator = chainermn.create_communicator('naive')
    results = {}
    for name, make, data in [
        ('detection', detector, list(detection_data())),
        ('segmentation', segmenter, list(segmentation_data())),
    ]:
        share = multi_node.share(data, communicator, force_equal_length=False)
        results[name] = {
            'together': communicator.gather_obj(evaluate(make, share, communicator)),
            'alone': evaluate(make, data, None),
        }
    if communicator.rank == 0:
        print(json.dumps(results))


if __name__ == '__main__':
    main()
