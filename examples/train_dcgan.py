"""A generator and a discriminator with an optimizer each, as in Chainer's DCGAN example."""

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


class Generator(chainer.Chain):
    def __init__(self, n_hidden, bottom_width=4, ch=512, wscale=0.02):
        super().__init__()
        self.n_hidden = n_hidden
        self.ch = ch
        self.bottom_width = bottom_width
        w = chainer.initializers.Normal(wscale)
        with self.init_scope():
            self.l0 = L.Linear(n_hidden, bottom_width * bottom_width * ch, initialW=w)
            self.dc1 = L.Deconvolution2D(ch, ch // 2, 4, 2, 1, initialW=w)
            self.dc2 = L.Deconvolution2D(ch // 2, ch // 4, 4, 2, 1, initialW=w)
            self.dc3 = L.Deconvolution2D(ch // 4, ch // 8, 4, 2, 1, initialW=w)
            self.dc4 = L.Deconvolution2D(ch // 8, 1, 3, 1, 1, initialW=w)
            self.bn0 = L.BatchNormalization(bottom_width * bottom_width * ch)
            self.bn1 = L.BatchNormalization(ch // 2)
            self.bn2 = L.BatchNormalization(ch // 4)
            self.bn3 = L.BatchNormalization(ch // 8)

    def make_hidden(self, batchsize):
        dtype = chainer.get_dtype(map_mixed16=numpy.float16)
        return numpy.random.uniform(-1, 1, (batchsize, self.n_hidden, 1, 1)).astype(dtype)

    def forward(self, z):
        h = F.relu(self.bn0(self.l0(z)))
        h = F.reshape(h, (len(z), self.ch, self.bottom_width, self.bottom_width))
        h = F.relu(self.bn1(self.dc1(h)))
        h = F.relu(self.bn2(self.dc2(h)))
        h = F.relu(self.bn3(self.dc3(h)))
        return F.sigmoid(self.dc4(h))


def add_noise(h, sigma=0.2):
    if not chainer.config.train:
        return h
    noise = sigma * h.xp.random.standard_normal(h.shape)
    return h + noise.astype(h.dtype)


class Discriminator(chainer.Chain):
    def __init__(self, bottom_width=4, ch=512, wscale=0.02):
        super().__init__()
        w = chainer.initializers.Normal(wscale)
        with self.init_scope():
            self.c0_0 = L.Convolution2D(1, ch // 8, 3, 1, 1, initialW=w)
            self.c0_1 = L.Convolution2D(ch // 8, ch // 4, 4, 2, 1, initialW=w)
            self.c1_0 = L.Convolution2D(ch // 4, ch // 4, 3, 1, 1, initialW=w)
            self.c1_1 = L.Convolution2D(ch // 4, ch // 2, 4, 2, 1, initialW=w)
            self.c2_0 = L.Convolution2D(ch // 2, ch // 2, 3, 1, 1, initialW=w)
            self.c2_1 = L.Convolution2D(ch // 2, ch, 4, 2, 1, initialW=w)
            self.c3_0 = L.Convolution2D(ch, ch, 3, 1, 1, initialW=w)
            self.l4 = L.Linear(bottom_width * bottom_width * ch, 1, initialW=w)
            self.bn0_1 = L.BatchNormalization(ch // 4, use_gamma=False)
            self.bn1_0 = L.BatchNormalization(ch // 4, use_gamma=False)
            self.bn1_1 = L.BatchNormalization(ch // 2, use_gamma=False)
            self.bn2_0 = L.BatchNormalization(ch // 2, use_gamma=False)
            self.bn2_1 = L.BatchNormalization(ch, use_gamma=False)
            self.bn3_0 = L.BatchNormalization(ch, use_gamma=False)

    def forward(self, x):
        h = add_noise(chainer.as_variable(x))
        h = F.leaky_relu(add_noise(self.c0_0(h)))
        h = F.leaky_relu(add_noise(self.bn0_1(self.c0_1(h))))
        h = F.leaky_relu(add_noise(self.bn1_0(self.c1_0(h))))
        h = F.leaky_relu(add_noise(self.bn1_1(self.c1_1(h))))
        h = F.leaky_relu(add_noise(self.bn2_0(self.c2_0(h))))
        h = F.leaky_relu(add_noise(self.bn2_1(self.c2_1(h))))
        h = F.leaky_relu(add_noise(self.bn3_0(self.c3_0(h))))
        return self.l4(h)


class DCGANUpdater(training.updaters.StandardUpdater):
    def __init__(self, *args, models, **kwargs):
        self.gen, self.dis = models
        super().__init__(*args, **kwargs)

    def loss_dis(self, dis, y_fake, y_real):
        batchsize = len(y_fake)
        l1 = F.sum(F.softplus(-y_real)) / batchsize
        l2 = F.sum(F.softplus(y_fake)) / batchsize
        loss = l1 + l2
        chainer.report({'loss': loss}, dis)
        return loss

    def loss_gen(self, gen, y_fake):
        batchsize = len(y_fake)
        loss = F.sum(F.softplus(-y_fake)) / batchsize
        chainer.report({'loss': loss}, gen)
        return loss

    def update_core(self):
        gen_optimizer = self.get_optimizer('gen')
        dis_optimizer = self.get_optimizer('dis')
        gen, dis = self.gen, self.dis
        x_real = self.converter(self.get_iterator('main').next(), self.device)
        y_real = dis(x_real)
        z = self.device.send(gen.make_hidden(len(x_real)))
        y_fake = dis(gen(z))
        dis_optimizer.update(self.loss_dis, dis, y_fake, y_real)
        gen_optimizer.update(self.loss_gen, gen, y_fake)


def get_digits(width):
    """Digits of 8 by 8 pixels, enlarged."""
    images = load_digits().images[:, None] / 16
    images = numpy.kron(images, numpy.ones((1, 1, width // 8, width // 8)))
    return images.astype(chainer.get_dtype(map_mixed16=numpy.float16))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--batchsize', type=int, default=50)
    parser.add_argument('--iteration', type=int, default=1000)
    parser.add_argument('--device', default='@numpy')
    parser.add_argument('--out', default='result')
    parser.add_argument('--ch', type=int, default=512)
    parser.add_argument('--n-hidden', type=int, default=100)
    args = parser.parse_args(arguments)
    device = chainer.get_device(args.device)
    device.use()

    gen = Generator(args.n_hidden, ch=args.ch)
    dis = Discriminator(ch=args.ch)
    gen.to_device(device)
    dis.to_device(device)

    def make_optimizer(model, alpha=0.0002, beta1=0.5):
        optimizer = chainerlp.AdaptiveLossScaling(chainer.optimizers.Adam(alpha, beta1))
        optimizer.setup(model)
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(0.0001), 'hook_dec')
        return optimizer

    train_iter = chainer.iterators.SerialIterator(get_digits(32), args.batchsize)
    updater = DCGANUpdater(
        models=(gen, dis),
        iterator=train_iter,
        optimizer={'gen': make_optimizer(gen), 'dis': make_optimizer(dis)},
        device=device,
    )
    trainer = training.Trainer(updater, (args.iteration, 'iteration'), out=args.out)
    trainer.extend(extensions.LogReport(trigger=(1, 'iteration')))
    trainer.extend(extensions.snapshot(), trigger=(args.iteration, 'iteration'))
    trainer.extend(extensions.snapshot_object(gen, 'gen'), trigger=(args.iteration, 'iteration'))
    trainer.run()
    return trainer


if __name__ == '__main__':
    main()
