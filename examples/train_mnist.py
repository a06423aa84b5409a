"""An MLP on handwritten digits under a trainer, as in Chainer's MNIST example."""

import argparse

import chainerlp

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer import training
from chainer.training import extensions
from sklearn.datasets import load_digits

chainer.global_config.dtype = chainer.mixed16


class MLP(chainer.Chain):
    def __init__(self, n_units, n_out):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(None, n_units)
            self.l2 = L.Linear(None, n_units)
            self.l3 = L.Linear(None, n_out)

    def forward(self, x):
        h1 = F.relu(self.l1(x))
        h2 = F.relu(self.l2(h1))
        return self.l3(h2)


def get_digits():
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(chainer.get_dtype(map_mixed16=numpy.float16))
    digits = chainer.datasets.TupleDataset(images, labels.astype(numpy.int32))
    return chainer.datasets.split_dataset(digits, 1500)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--batchsize', type=int, default=100)
    parser.add_argument('--epoch', type=int, default=20)
    parser.add_argument('--device', default='@numpy')
    parser.add_argument('--out', default='result')
    parser.add_argument('--resume')
    parser.add_argument('--unit', type=int, default=1000)
    args = parser.parse_args(arguments)
    device = chainer.get_device(args.device)
    device.use()

    model = L.Classifier(MLP(args.unit, 10))
    model.to_device(device)
    optimizer = chainerlp.AdaptiveLossScaling(chainer.optimizers.Adam())
    optimizer.setup(model)

    train, test = get_digits()
    train_iter = chainer.iterators.SerialIterator(train, args.batchsize)
    test_iter = chainer.iterators.SerialIterator(test, args.batchsize, repeat=False, shuffle=False)
    updater = training.updaters.StandardUpdater(train_iter, optimizer, device=device)
    trainer = training.Trainer(updater, (args.epoch, 'epoch'), out=args.out)
    trainer.extend(extensions.Evaluator(test_iter, model, device=device))
    trainer.extend(extensions.DumpGraph('main/loss'))
    trainer.extend(extensions.snapshot(), trigger=(1, 'epoch'))
    trainer.extend(extensions.LogReport())
    trainer.extend(extensions.ParameterStatistics(model), trigger=(1, 'epoch'))
    entries = ['epoch', 'main/loss', 'validation/main/loss', 'validation/main/accuracy']
    trainer.extend(extensions.PrintReport(entries))
    trainer.extend(extensions.ProgressBar(update_interval=10))
    if args.resume is not None:
        chainer.serializers.load_npz(args.resume, trainer)
    trainer.run()
    return trainer


if __name__ == '__main__':
    main()
