"""Small trainings that ScaleReport looks at."""

import csv
import os

import chainerlp
from chainerlp import policies

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer import optimizers, training


class ResNet(chainer.Chain):
    """A small residual CNN, in which one convolution is used twice."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(1, 6, 3, pad=1)
            self.res = L.Convolution2D(6, 6, 3, pad=1, groups=2)
            self.down = L.Convolution2D(6, 8, 3, stride=2, pad=1)
            self.fc = L.Linear(None, 10)

    def forward(self, x):
        h = F.relu(self.conv1(x))
        h = h + F.relu(self.res(F.relu(self.res(h))))
        return self.fc(F.relu(self.down(h)))


class MLP(chainer.Chain):
    """That of Chainer's MNIST example, with fewer units."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(None, 40)
            self.l2 = L.Linear(None, 30)
            self.l3 = L.Linear(None, 10)

    def forward(self, x):
        return self.l3(F.relu(self.l2(F.relu(self.l1(x)))))


class NothingToMeasure(chainer.Chain):
    """Its only layer's input wants no gradient."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.fc = L.Linear(None, 10)

    def forward(self, x):
        return self.fc(x)


def make_trainer(
    out, kind='mixed16', epochs=2, extension=None, batch_size=8, shrink=2.0**-12, net=ResNet
):
    dtype = numpy.float32 if kind in ('float32', 'computing') else chainer.mixed16
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        model = L.Classifier(
            net(), lossfun=lambda y, t: F.softmax_cross_entropy(F.cast(y, 'f'), t) * shrink
        )
        x = numpy.random.standard_normal((32, 1, 8, 8)).astype(chainer.get_dtype())
    t = numpy.random.randint(0, 10, 32).astype('i')
    optimizer = optimizers.MomentumSGD(1.0)
    if kind in ('wrapped', 'computing'):
        compute_dtype = 'float16' if kind == 'computing' else None
        optimizer = chainerlp.AdaptiveLossScaling(
            optimizer, policies.Measured(), compute_dtype=compute_dtype
        )
    optimizer.use_fp32_update()
    optimizer.setup(model)
    if kind == 'static':
        optimizer.loss_scaling(scale=64)
    if kind == 'dynamic':
        optimizer.loss_scaling()
    iterator = chainer.iterators.SerialIterator(chainer.datasets.TupleDataset(x, t), batch_size)
    updater = training.updaters.StandardUpdater(iterator, optimizer)
    trainer = training.Trainer(updater, (epochs, 'epoch'), out=str(out))
    if extension is not None:
        trainer.extend(extension)
    return trainer


def rows_of(out, filename='scales.csv'):
    with open(os.path.join(str(out), filename), newline='') as file:
        return list(csv.DictReader(file))
