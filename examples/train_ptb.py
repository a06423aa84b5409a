"""A recurrent language model with truncated backpropagation, as in Chainer's PTB example."""

import argparse

import chainerlp

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer import training
from chainer.training import extensions

chainer.global_config.dtype = chainer.mixed16

# Opening words of the Universal Declaration of Human Rights.
TEXT = """
whereas recognition of the inherent dignity and of the equal and inalienable rights of all members
of the human family is the foundation of freedom justice and peace in the world
whereas disregard and contempt for human rights have resulted in barbarous acts which have outraged
the conscience of mankind and the advent of a world in which human beings shall enjoy freedom of
speech and belief and freedom from fear and want has been proclaimed as the highest aspiration of
the common people
""".split()


class RNNForLM(chainer.Chain):
    def __init__(self, n_vocab, n_units):
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(n_vocab, n_units)
            self.l1 = L.LSTM(n_units, n_units)
            self.l2 = L.LSTM(n_units, n_units)
            self.l3 = L.Linear(n_units, n_vocab)
        for param in self.params():
            param.array[...] = numpy.random.uniform(-0.1, 0.1, param.shape)

    def reset_state(self):
        self.l1.reset_state()
        self.l2.reset_state()

    def forward(self, x):
        h0 = self.embed(x)
        h1 = self.l1(F.dropout(h0, 0.2))
        h2 = self.l2(F.dropout(h1, 0.2))
        return self.l3(F.dropout(h2, 0.2))


class ParallelSequentialIterator(chainer.dataset.Iterator):
    """Reads a text at several places at once; an item is a word and the one that follows it."""

    def __init__(self, dataset, batch_size):
        self.dataset = dataset
        self.batch_size = batch_size
        self.epoch = 0
        self.is_new_epoch = False
        self.iteration = 0
        self._offsets = [i * len(dataset) // batch_size for i in range(batch_size)]

    def __next__(self):
        words = self._words()
        self.iteration += 1
        epoch = self.iteration * self.batch_size // len(self.dataset)
        self.is_new_epoch = self.epoch < epoch
        self.epoch = epoch
        return list(zip(words, self._words()))

    @property
    def epoch_detail(self):
        return self.iteration * self.batch_size / len(self.dataset)

    def serialize(self, serializer):
        self.iteration = serializer('iteration', self.iteration)
        self.epoch = serializer('epoch', self.epoch)

    def _words(self):
        length = len(self.dataset)
        return [self.dataset[(offset + self.iteration) % length] for offset in self._offsets]


class BPTTUpdater(training.updaters.StandardUpdater):
    def __init__(self, train_iter, optimizer, bprop_len, device):
        super().__init__(train_iter, optimizer, device=device)
        self.bprop_len = bprop_len

    def update_core(self):
        loss = 0
        train_iter = self.get_iterator('main')
        optimizer = self.get_optimizer('main')
        for _ in range(self.bprop_len):
            x, t = self.converter(train_iter.__next__(), self.device)
            loss += optimizer.target(x, t)
        optimizer.target.cleargrads()
        optimizer.backward(loss)
        loss.unchain_backward()
        optimizer.update()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--batchsize', type=int, default=20)
    parser.add_argument('--bproplen', type=int, default=35)
    parser.add_argument('--epoch', type=int, default=39)
    parser.add_argument('--device', default='@numpy')
    parser.add_argument('--gradclip', type=float, default=5)
    parser.add_argument('--out', default='result')
    parser.add_argument('--unit', type=int, default=650)
    args = parser.parse_args(arguments)
    device = chainer.get_device(args.device)
    device.use()

    vocabulary = {word: i for i, word in enumerate(sorted(set(TEXT)))}
    train = numpy.array([vocabulary[word] for word in TEXT], numpy.int32)
    train_iter = ParallelSequentialIterator(train, args.batchsize)
    model = L.Classifier(RNNForLM(len(vocabulary), args.unit))
    model.compute_accuracy = False
    model.to_device(device)
    optimizer = chainerlp.AdaptiveLossScaling(chainer.optimizers.SGD(lr=1.0))
    optimizer.setup(model)
    optimizer.add_hook(chainerlp.optimizer_hooks.GradientClipping(args.gradclip))

    updater = BPTTUpdater(train_iter, optimizer, args.bproplen, device)
    trainer = training.Trainer(updater, (args.epoch, 'epoch'), out=args.out)
    trainer.extend(extensions.LogReport(trigger=(1, 'epoch')))
    trainer.extend(extensions.snapshot_object(model, 'model_iter_{.updater.iteration}'))
    trainer.run()
    return trainer


if __name__ == '__main__':
    main()
