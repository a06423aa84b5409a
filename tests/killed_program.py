"""Trains from the newest snapshot, if any, and may kill itself; run by test_kill_and_resume.py.

Usage: killed_program.py OUT [ITERATION PLACE DELAY], PLACE being one of `PLACES`.
"""

import os
import signal
import sys
import threading

import chainerlp
from chainerlp import policies

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer import serializers, training
from chainer.training import extensions

ITERATIONS = 60
BATCHES, BATCH = 15, 4
# Batches whose gradients are infinite: the second in a row makes the optimizer back off, and the
# third one meets it when it tries its full size again.
BAD = (5, 6, 8)
# When the program kills itself: in the update, with half a line of the scales written, with all of
# them written but no snapshot, within the snapshot, after it; and whenever DELAY seconds are over.
PLACES = ('update', 'scales', 'report', 'snapshot', 'after', 'anytime')


class Spoiled(chainer.FunctionNode):
    """Identity, but for the gradient, which is multiplied."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, inputs):
        return inputs

    def backward(self, indexes, grad_outputs):
        return (grad_outputs[0] * self.factor,)


class Model(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(1, 4, 3)
            self.norm = L.BatchNormalization(4)
            self.fc1 = L.Linear(None, 16)
            self.fc2 = L.Linear(16, 3)

    def forward(self, x, t, factor):
        h = F.relu(self.norm(self.conv(x)))
        y = self.fc2(F.relu(self.fc1(h)))
        loss = F.softmax_cross_entropy(*Spoiled(factor[:, None]).apply((y,)), t)
        chainer.report({'loss': loss}, self)
        return loss


def data():
    rng = numpy.random.RandomState(1)
    x = rng.standard_normal((BATCHES * BATCH, 1, 6, 6)).astype('e')
    t = rng.randint(0, 3, BATCHES * BATCH).astype('i')
    factor = numpy.ones(BATCHES * BATCH, 'e')
    for batch in BAD:
        factor[batch * BATCH] = numpy.inf
    return chainer.datasets.TupleDataset(x, t, factor)


def make_trainer(out, savefun=serializers.save_npz):
    chainer.global_config.dtype = chainer.mixed16
    numpy.random.seed(0)
    model = Model()
    optimizer = chainerlp.AdaptiveLossScaling(
        chainer.optimizers.Adam(0.01), policies.Measured(interval=3), initial_scale='auto'
    )
    optimizer.setup(model)
    optimizer.add_hook(chainerlp.optimizer_hooks.GradientClipping(1.0))
    iterator = chainer.iterators.SerialIterator(data(), BATCH, shuffle=False)
    updater = training.updaters.StandardUpdater(iterator, optimizer)
    trainer = training.Trainer(updater, (ITERATIONS, 'iteration'), out=out)
    trainer.extend(chainerlp.extensions.ScaleReport(trigger=(1, 'iteration')))
    trainer.extend(extensions.LogReport(trigger=(7, 'iteration')))
    snapshot = extensions.snapshot(savefun, autoload=True, n_retains=3)
    trainer.extend(snapshot, trigger=(1, 'iteration'))
    return trainer


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def kill(out, iteration, place, delay):
    def save(path, target):
        serializers.save_npz(path, target)
        if place == 'snapshot' and trainer.updater.iteration == iteration:
            os.truncate(path, os.path.getsize(path) // 2)
            die()

    trainer = make_trainer(out, save)

    def at(priority):
        def extend(function):
            def at_iteration(trainer):
                if trainer.updater.iteration == iteration:
                    function()

            trainer.extend(
                at_iteration, name=function.__name__, trigger=(1, 'iteration'), priority=priority
            )

        return extend

    def in_update(rule, param):
        if trainer.updater.iteration == iteration - 1:
            die()

    if place == 'update':
        hooked = trainer.updater.get_optimizer('main').target.fc1.W
        hooked.update_rule.add_hook(in_update, 'in_update')

    @at(training.PRIORITY_WRITER - 1)
    def after_the_report():
        if place == 'scales':
            path = os.path.join(out, 'scales.csv')
            os.truncate(path, os.path.getsize(path) - 30)
            die()
        elif place == 'report':
            die()

    @at(-200)  # below the snapshot's
    def after_the_snapshot():
        if place == 'after':
            die()

    @at(training.PRIORITY_WRITER + 1)
    def from_the_report_on():
        if place == 'anytime':
            threading.Timer(delay, die).start()

    trainer.run()
    raise AssertionError(f'not killed at {iteration}, {place}')


def main(out, *arguments):
    if arguments:
        iteration, place, delay = arguments
        kill(out, int(iteration), place, float(delay))
    make_trainer(out).run()


if __name__ == '__main__':
    main(*sys.argv[1:])
