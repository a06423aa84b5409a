"""An MLP on handwritten digits in a loop of one's own, as in Chainer's second MNIST example."""

import argparse

import chainerlp

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer import serializers
from chainer.dataset import concat_examples
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
    parser.add_argument('--out', default='mlp')
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
    losses, accuracies = [], []
    sum_loss = 0
    while train_iter.epoch < args.epoch:
        x, t = concat_examples(train_iter.next(), device)
        optimizer.update(model, x, t)
        sum_loss += float(model.loss.array) * len(t)
        if train_iter.is_new_epoch:
            losses.append(sum_loss / len(train))
            print(f'epoch {train_iter.epoch}: train mean loss {losses[-1]}')
            sum_loss = sum_accuracy = 0
            with chainer.using_config('train', False), chainer.no_backprop_mode():
                for batch in test_iter:
                    x, t = concat_examples(batch, device)
                    model(x, t)
                    sum_accuracy += float(model.accuracy.array) * len(t)
            test_iter.reset()
            accuracies.append(sum_accuracy / len(test))
            print(f'test accuracy {accuracies[-1]}')
    serializers.save_npz(f'{args.out}.model', model)
    serializers.save_npz(f'{args.out}.state', optimizer)
    return optimizer, losses, accuracies


if __name__ == '__main__':
    main()
