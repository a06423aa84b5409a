"""Interrupts a training of several workers and goes on with it; run by test_multi_node.py.

Rank 0 prints each worker's parameters and its number of updates: of the training as a whole, of the
resumed one, and, after one more iteration, of one that only the first worker resumes.
"""

import json
import pathlib
import sys

import chainerlp
from chainerlp import policies

import chainer
import chainer.functions as F
import chainer.links as L
import chainermn
import numpy
from chainer import optimizers, serializers, training

COMM = chainermn.create_communicator('naive')
ITERATIONS = 20


def make_trainer(iterations):
    numpy.random.seed(COMM.rank)
    with chainer.using_config('dtype', chainer.mixed16):
        model = L.Classifier(chainer.Sequential(L.Linear(6, 8), F.relu, L.Linear(8, 3)))
    optimizer = chainerlp.AdaptiveLossScaling(
        chainermn.create_multi_node_optimizer(optimizers.MomentumSGD(0.05), COMM),
        policies.Measured(interval=3),
    ).setup(model)
    rng = numpy.random.RandomState(COMM.rank)
    data = chainer.datasets.TupleDataset(
        rng.standard_normal((20, 6)).astype('e'), rng.randint(0, 3, 20).astype('i')
    )
    batches = chainer.iterators.SerialIterator(data, 5, shuffle=False)
    updater = training.updaters.StandardUpdater(batches, optimizer)
    return training.Trainer(updater, (iterations, 'iteration'))


def run(trainer):
    trainer.run()
    optimizer = trainer.updater.get_optimizer('main')
    parameters = [param.array.tolist() for param in optimizer.target.params()]
    return parameters, optimizer.t


def main(folder, interrupted_after):
    path = pathlib.Path(folder, f'{COMM.rank}.npz')
    whole = run(make_trainer(ITERATIONS))
    first = make_trainer(interrupted_after)
    first.run()
    serializers.save_npz(path, first)
    second = make_trainer(ITERATIONS)
    serializers.load_npz(path, second)
    resumed = run(second)
    third = make_trainer(interrupted_after + 1 if COMM.rank == 0 else 1)
    if COMM.rank == 0:
        serializers.load_npz(path, third)
    everyones = COMM.gather_obj((whole, resumed, run(third)))
    if COMM.rank == 0:
        print(json.dumps(everyones))


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]))
