"""VGG-16 with batch normalization and dropout on small images, as in Chainer's CIFAR example."""

import argparse

import chainerlp

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer import training
from chainer.training import extensions

chainer.global_config.dtype = chainer.mixed16


class Block(chainer.Chain):
    """A convolution, batch normalization, ReLU."""

    def __init__(self, out_channels):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(None, out_channels, 3, pad=1, nobias=True)
            self.bn = L.BatchNormalization(out_channels)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class VGG(chainer.Chain):
    """Thirteen convolutions in five stages, then two fully connected layers."""

    def __init__(self, class_labels):
        super().__init__()
        with self.init_scope():
            self.block1_1 = Block(64)
            self.block1_2 = Block(64)
            self.block2_1 = Block(128)
            self.block2_2 = Block(128)
            self.block3_1 = Block(256)
            self.block3_2 = Block(256)
            self.block3_3 = Block(256)
            self.block4_1 = Block(512)
            self.block4_2 = Block(512)
            self.block4_3 = Block(512)
            self.block5_1 = Block(512)
            self.block5_2 = Block(512)
            self.block5_3 = Block(512)
            self.fc1 = L.Linear(None, 512, nobias=True)
            self.bn_fc1 = L.BatchNormalization(512)
            self.fc2 = L.Linear(None, class_labels, nobias=True)

    def forward(self, x):
        h = F.dropout(self.block1_1(x), 0.3)
        h = F.max_pooling_2d(self.block1_2(h), 2)
        h = F.dropout(self.block2_1(h), 0.4)
        h = F.max_pooling_2d(self.block2_2(h), 2)
        h = F.dropout(self.block3_1(h), 0.4)
        h = F.dropout(self.block3_2(h), 0.4)
        h = F.max_pooling_2d(self.block3_3(h), 2)
        h = F.dropout(self.block4_1(h), 0.4)
        h = F.dropout(self.block4_2(h), 0.4)
        h = F.max_pooling_2d(self.block4_3(h), 2)
        h = F.dropout(self.block5_1(h), 0.4)
        h = F.dropout(self.block5_2(h), 0.4)
        h = F.max_pooling_2d(self.block5_3(h), 2)
        h = F.dropout(h, 0.5)
        h = F.relu(self.bn_fc1(self.fc1(h)))
        return self.fc2(F.dropout(h, 0.5))


def get_images(count, classes=2):
    """Noise that is brighter in the channel of its class."""
    rng = numpy.random.RandomState(0)
    labels = (numpy.arange(count) % classes).astype(numpy.int32)
    images = rng.rand(count, 3, 32, 32) / 2
    images[numpy.arange(count), labels] += 0.5
    dtype = chainer.get_dtype(map_mixed16=numpy.float16)
    return chainer.datasets.TupleDataset(images.astype(dtype), labels)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--batchsize', type=int, default=64)
    parser.add_argument('--learnrate', type=float, default=0.05)
    parser.add_argument('--iteration', type=int, default=1000)
    parser.add_argument('--images', type=int, default=640)
    parser.add_argument('--device', default='@numpy')
    parser.add_argument('--out', default='result')
    args = parser.parse_args(arguments)
    device = chainer.get_device(args.device)
    device.use()

    model = L.Classifier(VGG(class_labels=10))
    model.to_device(device)
    optimizer = chainerlp.AdaptiveLossScaling(chainer.optimizers.MomentumSGD(args.learnrate))
    optimizer.setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(5e-4))

    train_iter = chainer.iterators.SerialIterator(get_images(args.images), args.batchsize)
    test_iter = chainer.iterators.SerialIterator(
        get_images(args.batchsize), args.batchsize, repeat=False, shuffle=False
    )
    updater = training.updaters.StandardUpdater(train_iter, optimizer, device=device)
    trainer = training.Trainer(updater, (args.iteration, 'iteration'), out=args.out)
    trainer.extend(extensions.Evaluator(test_iter, model, device=device))
    trainer.extend(extensions.ExponentialShift('lr', 0.5), trigger=(25, 'epoch'))
    trainer.extend(extensions.observe_lr(), trigger=(1, 'iteration'))
    trainer.extend(extensions.LogReport(trigger=(1, 'iteration')))
    trainer.run()
    return trainer


if __name__ == '__main__':
    main()
