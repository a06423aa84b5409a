"""A float32 model that is not to be changed: only the products of its layers are in float16."""

import argparse

import chainerlp

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer import training
from chainer.training import extensions
from sklearn.datasets import load_digits


class MLP(chainer.Chain):
    """Somebody's model, with a constant that would stop it in mixed16: it is float32."""

    def __init__(self, n_units, n_out):
        super().__init__()
        self.shift = numpy.linspace(-1, 1, n_units, dtype=numpy.float32)
        with self.init_scope():
            self.l1 = L.Linear(None, n_units)
            self.l2 = L.Linear(None, n_units)
            self.l3 = L.Linear(None, n_out)

    def forward(self, x):
        h1 = F.relu(self.l1(x) + self.xp.asarray(self.shift))
        h2 = F.relu(self.l2(h1))
        return self.l3(h2)


def get_digits():
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(numpy.float32)
    digits = chainer.datasets.TupleDataset(images, labels.astype(numpy.int32))
    return chainer.datasets.split_dataset(digits, 1500)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--batchsize', type=int, default=100)
    parser.add_argument('--epoch', type=int, default=20)
    parser.add_argument('--device', default='@numpy')
    parser.add_argument('--format', default='float16', help='or bfloat16, float8_e5m2, float8_e4m3')
    parser.add_argument('--out', default='result')
    parser.add_argument('--unit', type=int, default=1000)
    args = parser.parse_args(arguments)
    device = chainer.get_device(args.device)
    device.use()

    model = L.Classifier(MLP(args.unit, 10))
    model.to_device(device)
    optimizer = chainerlp.AdaptiveLossScaling(chainer.optimizers.Adam(), compute_dtype=args.format)
    optimizer.setup(model)

    train, test = get_digits()
    train_iter = chainer.iterators.SerialIterator(train, args.batchsize)
    test_iter = chainer.iterators.SerialIterator(test, args.batchsize, repeat=False, shuffle=False)
    updater = training.updaters.StandardUpdater(train_iter, optimizer, device=device)
    trainer = training.Trainer(updater, (args.epoch, 'epoch'), out=args.out)
    trainer.extend(extensions.Evaluator(test_iter, model, device=device))
    trainer.extend(chainerlp.extensions.ScaleReport(trigger=(15, 'iteration')))
    trainer.extend(extensions.LogReport())
    entries = ['epoch', 'main/loss', 'validation/main/accuracy', 'scaling/underflow']
    trainer.extend(extensions.PrintReport(entries))
    trainer.run()
    return trainer


if __name__ == '__main__':
    main()
