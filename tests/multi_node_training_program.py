"""Trains with ChainerMN; run by test_multi_node.py under mpiexec. Rank 0 prints what came of it."""

import json
import sys

import chainerlp
from chainerlp import policies

import chainer
import chainer.functions as F
import chainer.links as L
import chainermn
import numpy
from chainer import optimizers

UPDATES = 50
BATCH = 12


def make_model(dtype, seed):
    numpy.random.seed(seed)
    with chainer.using_config('dtype', chainer.mixed16 if dtype == 'mixed16' else numpy.dtype('f')):
        return chainer.Sequential(L.Linear(6, 8), F.relu, L.Linear(8, 8), F.relu, L.Linear(8, 3))


def data(model):
    rng = numpy.random.RandomState(3)
    x = rng.standard_normal((BATCH, 6)).astype(model[0].W.dtype)
    # The workers' shares differ by orders of magnitude, and so do the scales they choose.
    factor = (10.0 ** -(numpy.arange(BATCH) // 2)).astype('f')
    return x, factor


def loss_of(model, x, factor):
    return F.mean(F.sum(F.square(F.cast(model(x), 'f')), axis=1) * factor)


def train(optimizer, model, x, factor, bad_at=None, is_bad=False):
    for update in range(UPDATES + 1):  # ChainerMN's first only distributes the parameters
        if is_bad and update == bad_at:
            before = [p.array.copy() for p in model.params()]
            loss = loss_of(model, x, factor)
            model.cleargrads()
            optimizer.backward(loss)
            model[0].b.grad[0] = numpy.inf
            optimizer.update()
            assert all((a == p.array).all() for a, p in zip(before, model.params()))
        else:
            optimizer.update(loss_of, model, x, factor)


def bad_losses():
    """Twelve updates in which the loss of one worker is not finite."""
    comm = chainermn.create_communicator('naive')
    model = make_model('mixed16', seed=0)
    optimizer = chainerlp.AdaptiveLossScaling(
        chainermn.create_multi_node_optimizer(optimizers.MomentumSGD(0.05), comm)
    ).setup(model)
    x, factor = data(model)
    optimizer.update(loss_of, model, x, factor)
    for _ in range(12):
        optimizer.update(lambda: loss_of(model, x, factor) * (numpy.nan if comm.rank == 1 else 1.0))
    everyones = comm.gather_obj((optimizer.skipped, optimizer.recovery.backoff))
    if comm.rank == 0:
        print(json.dumps(everyones))


def main(dtype, policy, bad_at):
    comm = chainermn.create_communicator('naive')
    model = make_model(dtype, seed=comm.rank)  # ChainerMN makes them equal
    optimizer = chainerlp.AdaptiveLossScaling(
        chainermn.create_multi_node_optimizer(optimizers.MomentumSGD(0.05), comm),
        getattr(policies, policy)(),
    ).setup(model)
    assert isinstance(optimizer, optimizers.MomentumSGD)
    x, factor = data(model)
    share = slice(comm.rank * BATCH // comm.size, (comm.rank + 1) * BATCH // comm.size)
    is_bad = bad_at is not None and comm.rank == comm.size - 1
    train(optimizer, model, x[share], factor[share], bad_at, is_bad)
    flat = numpy.concatenate([p.array.ravel().astype('f') for p in model.params()])
    everyones = comm.gather_obj((flat.tolist(), optimizer.skipped, optimizer.t))
    if comm.rank == 0:
        alone = make_model(dtype, seed=0)
        by_itself = chainerlp.AdaptiveLossScaling(
            optimizers.MomentumSGD(0.05), getattr(policies, policy)()
        ).setup(alone)
        for _ in range(UPDATES):
            by_itself.update(loss_of, alone, x, factor)
        reference = numpy.concatenate([p.array.ravel().astype('f') for p in alone.params()])
        print(json.dumps(dict(ranks=everyones, reference=reference.tolist())))


if __name__ == '__main__':
    if sys.argv[1] == 'bad losses':
        bad_losses()
    else:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None)
