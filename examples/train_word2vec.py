"""Skip-gram word vectors with three ways of forming the loss, as in Chainer's word2vec example."""

import argparse
import collections

import chainerlp

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer import training
from chainer.training import extensions

chainer.global_config.dtype = chainer.mixed16

# A nursery rhyme.
TEXT = """
the house that jack built this is the malt that lay in the house that jack built this is the rat
that ate the malt that lay in the house that jack built this is the cat that killed the rat that
ate the malt that lay in the house that jack built this is the dog that worried the cat that killed
the rat that ate the malt that lay in the house that jack built
""".split()


class SkipGram(chainer.Chain):
    def __init__(self, n_vocab, n_units, loss_func):
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(
                n_vocab, n_units, initialW=chainer.initializers.Uniform(1.0 / n_units)
            )
            self.loss_func = loss_func

    def forward(self, x, contexts):
        e = self.embed(contexts)
        batch_size, n_context, n_units = e.shape
        x = F.broadcast_to(x[:, None], (batch_size, n_context))
        e = F.reshape(e, (batch_size * n_context, n_units))
        x = F.reshape(x, (batch_size * n_context,))
        loss = self.loss_func(e, x)
        chainer.report({'loss': loss}, self)
        return loss


class SoftmaxCrossEntropyLoss(chainer.Chain):
    def __init__(self, n_in, n_out):
        super().__init__()
        with self.init_scope():
            self.out = L.Linear(n_in, n_out, initialW=0)

    def forward(self, x, t):
        return F.softmax_cross_entropy(self.out(x), t)


class WindowIterator(chainer.dataset.Iterator):
    """Words in random order, each with those around it in a window of random size."""

    def __init__(self, dataset, window, batch_size):
        self.dataset = numpy.array(dataset, numpy.int32)
        self.window = window
        self.batch_size = batch_size
        self.order = numpy.random.permutation(len(dataset) - window * 2).astype(numpy.int32)
        self.order += window
        self.current_position = 0
        self.epoch = 0
        self.is_new_epoch = False

    def __next__(self):
        start = self.current_position
        end = start + self.batch_size
        positions = self.order[start:end]
        window = numpy.random.randint(1, self.window + 1)
        offset = numpy.concatenate([numpy.arange(-window, 0), numpy.arange(1, window + 1)])
        context = self.dataset.take(positions[:, None] + offset[None, :])
        center = self.dataset.take(positions)
        self.is_new_epoch = end >= len(self.order)
        if self.is_new_epoch:
            numpy.random.shuffle(self.order)
            self.epoch += 1
            end = 0
        self.current_position = end
        return center, context

    @property
    def epoch_detail(self):
        return self.epoch + self.current_position / len(self.order)


@chainer.dataset.converter()
def convert(batch, device):
    return tuple(device.send(part) for part in batch)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--unit', '-u', type=int, default=100)
    parser.add_argument('--window', '-w', type=int, default=5)
    parser.add_argument('--batchsize', '-b', type=int, default=1000)
    parser.add_argument('--epoch', '-e', type=int, default=20)
    parser.add_argument('--negative-size', type=int, default=5)
    parser.add_argument('--out-type', '-o', choices=['hsm', 'ns', 'original'], default='hsm')
    parser.add_argument('--device', default='@numpy')
    parser.add_argument('--out', default='result')
    args = parser.parse_args(arguments)
    device = chainer.get_device(args.device)
    device.use()

    vocabulary = {word: i for i, word in enumerate(sorted(set(TEXT)))}
    train = [vocabulary[word] for word in TEXT]
    counts = collections.Counter(train)
    if args.out_type == 'hsm':
        tree = L.BinaryHierarchicalSoftmax.create_huffman_tree(counts)
        loss_func = L.BinaryHierarchicalSoftmax(args.unit, tree)
        loss_func.W.array[...] = 0
    elif args.out_type == 'ns':
        frequencies = [counts[word] for word in range(len(counts))]
        loss_func = L.NegativeSampling(args.unit, frequencies, args.negative_size)
        loss_func.W.array[...] = 0
    else:
        loss_func = SoftmaxCrossEntropyLoss(args.unit, len(vocabulary))

    model = SkipGram(len(vocabulary), args.unit, loss_func)
    model.to_device(device)
    optimizer = chainerlp.AdaptiveLossScaling(chainer.optimizers.Adam())
    optimizer.setup(model)

    train_iter = WindowIterator(train, args.window, args.batchsize)
    updater = training.updaters.StandardUpdater(
        train_iter, optimizer, converter=convert, device=device
    )
    trainer = training.Trainer(updater, (args.epoch, 'epoch'), out=args.out)
    trainer.extend(extensions.LogReport())
    trainer.extend(extensions.PrintReport(['epoch', 'main/loss', 'elapsed_time']))
    trainer.run()
    return trainer


if __name__ == '__main__':
    main()
