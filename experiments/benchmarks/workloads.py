"""What is trained in a benchmark: a model, and a batch of made-up data for it."""

import dataclasses

from experiments.models.resnet_cifar import CIFARResNet
from experiments.models.resnet_imagenet import ImageNetResNet
from experiments.models.small_models import MLP, SmallCNN
from experiments.models.ssd import SSD
from experiments.tasks import classification, detection

import chainer
import numpy
from chainer import links


@dataclasses.dataclass(frozen=True)
class Workload:
    """A model and its batch.

    Attributes:
        name (str): Names it.
        what (str): Says what it is.
        shape (tuple of int): Shape of an example.
        batch_size (int): Examples in a batch.
        build (callable): Builds the model with its loss.
        targets (callable): From the model, the batch size and a random state to what the loss takes
            besides the examples.
    """

    name: str
    what: str
    shape: tuple
    batch_size: int
    build: object
    targets: object

    def prepare(self):
        """Builds the model and its batch in Chainer's configured dtype, the same in every call.

        Returns:
            tuple: A link that returns the loss, and its arguments.
        """
        numpy.random.seed(0)  # Chainer's initializers draw from it
        random = numpy.random.RandomState(0)
        model = self.build()
        x = random.standard_normal((self.batch_size, *self.shape)).astype(chainer.get_dtype())
        return model, (x, *self.targets(model, self.batch_size, random))


def _classifier(build):
    return lambda: links.Classifier(build(), classification.loss, classification.accuracy)


def _classes(model, batch_size, random):
    return (random.randint(0, 10, batch_size).astype(numpy.int32),)


def _boxes(model, batch_size, random):
    count = len(model.predictor.default_boxes)
    locs = random.standard_normal((batch_size, count, 4)).astype(numpy.float32)
    # One default box in 500 is an object's, about as many as in VOC.
    classes = random.randint(1, 21, (batch_size, count)) * (random.rand(batch_size, count) < 2e-3)
    return locs, classes.astype(numpy.int32)


def _ssd(width):
    # Scaled as for a training from scratch: its first gradients would leave float16 otherwise.
    return lambda: detection.TrainChain(SSD(20, 300, width, pixel_scale=64.0))


_MLP = _classifier(lambda: MLP(784, 512, 10, layers=6)), _classes
_WIDE_MLP = _classifier(lambda: MLP(784, 2048, 10, layers=6)), _classes
_CNN = _classifier(lambda: SmallCNN(3, 10)), _classes
_RESNET20 = _classifier(lambda: CIFARResNet(20, 10)), _classes
_RESNET18 = _classifier(lambda: ImageNetResNet(18, 1000)), _classes
_RESNET50 = _classifier(lambda: ImageNetResNet(50, 1000)), _classes
# On a CPU at sizes at which an iteration of plain Chainer in float16 still ends within a minute.
_ON_CPU = [
    Workload('mlp', 'MLP', (784,), 128, *_MLP),
    Workload('cnn', 'small CNN', (3, 32, 32), 32, *_CNN),
    Workload('resnet20', 'ResNet-20', (3, 32, 32), 8, *_RESNET20),
    Workload('resnet18', 'ResNet-18', (3, 64, 64), 2, *_RESNET18),
    Workload('resnet50', 'ResNet-50', (3, 64, 64), 2, *_RESNET50),
    Workload('ssd300', 'SSD300, an eighth as wide', (3, 300, 300), 1, _ssd(0.125), _boxes),
]
_ON_GPU = [
    Workload('mlp', 'MLP', (784,), 1024, *_WIDE_MLP),
    Workload('cnn', 'small CNN', (3, 32, 32), 256, *_CNN),
    Workload('resnet20', 'ResNet-20', (3, 32, 32), 128, *_RESNET20),
    Workload('resnet18', 'ResNet-18', (3, 224, 224), 64, *_RESNET18),
    Workload('resnet50', 'ResNet-50', (3, 224, 224), 32, *_RESNET50),
    Workload('ssd300', 'SSD300', (3, 300, 300), 8, _ssd(1.0), _boxes),
]
NAMES = tuple(workload.name for workload in _ON_CPU)


def get(name, device):
    """Returns a workload by its name, in the size for a device."""
    workloads = _ON_CPU if device.xp is numpy else _ON_GPU
    return next(workload for workload in workloads if workload.name == name)
