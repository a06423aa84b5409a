"""Gradients through ChainerMN's functions that exchange gradients; run by test_multi_node.py.

Rank 0 prints, for each case and worker, the gradients of a scaled pass in float16, and those of
Chainer's own in float32. The workers' losses are different, and so are the scales that they carry.
"""

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

COMM = chainermn.create_communicator('naive')
FACTOR = 4.0**-COMM.rank
SIZE = 6


class Net(chainer.Chain):
    def __init__(self, dtype):
        super().__init__()
        numpy.random.seed(0)
        with self.init_scope(), chainer.using_config('dtype', dtype):
            self.first = L.Linear(SIZE, SIZE)
            self.norm = chainermn.links.MultiNodeBatchNormalization(SIZE, COMM, dtype='f')
            self.second = L.Linear(SIZE, SIZE)
            self.of_all = L.Linear(SIZE * COMM.size, SIZE)
        for param in self.params():
            param.array[...] = param.array.astype('e')


def loss_of(y):
    return F.sum(F.square(F.cast(y, 'f') - 1)) * FACTOR


def normalization(net, x):
    return loss_of(net.second(net.norm(net.first(x))))


def allgather(net, x):
    return loss_of(net.of_all(F.concat(chainermn.functions.allgather(COMM, net.first(x)))))


def alltoall(net, x):
    parts = [net.first(x) * (k + 1) for k in range(COMM.size)]
    return loss_of(net.of_all(F.concat(chainermn.functions.alltoall(COMM, parts))))


def bcast(net, x):
    sent = net.first(x) if COMM.rank == 0 else None
    return loss_of(net.second(chainermn.functions.bcast(COMM, sent)))


def scatter(net, x):
    parts = [net.first(x) * (k + 1) for k in range(COMM.size)] if COMM.rank == 0 else None
    return loss_of(net.second(chainermn.functions.scatter(COMM, parts)))


def gather(net, x):
    gathered = chainermn.functions.gather(COMM, net.first(x))
    return loss_of(net.of_all(F.concat(gathered))) if COMM.rank == 0 else gathered


def there_and_back(net, x):
    """The first worker's gradients pass through the second worker."""
    functions = chainermn.functions
    if COMM.rank == 0:
        sent = functions.send(net.first(x), COMM, rank=1)
        return loss_of(net.second(functions.recv(COMM, rank=1, delegate_variable=sent)))
    if COMM.rank == 1:
        return functions.send(net.first(functions.recv(COMM, rank=0)), COMM, rank=0)
    return loss_of(net.second(net.first(x)))


def inside_forget(net, x):
    return loss_of(net.second(F.forget(lambda h: net.norm(net.first(h)), chainer.Variable(x))))


CASES = [normalization, allgather, alltoall, bcast, scatter, gather, there_and_back, inside_forget]


def gradients(case, dtype):
    net = Net(dtype)
    x = numpy.random.RandomState(COMM.rank).standard_normal((4, SIZE)).astype(dtype)
    net.cleargrads()
    with chainer.using_config('dtype', numpy.dtype(dtype)):
        if dtype == 'f':
            case(net, x).backward()
        else:
            chainerlp.convert(net, policies.Fixed(2.0 ** (3 * COMM.rank)))
            chainerlp.backward(case(net, x), initial_scale=16.0 if COMM.rank == 0 else 1.0)
    found = {path: chainerlp.unscaled_grad(param) for path, param in net.namedparams()}
    return {path: array.tolist() for path, array in found.items() if array is not None}


def search():
    """The first worker searches its initial scale while the last one's loss is not finite."""
    net = Net('e')
    optimizer = chainerlp.AdaptiveLossScaling(
        chainermn.create_multi_node_optimizer(optimizers.SGD(0.01), COMM), initial_scale='auto'
    ).setup(net)
    x = numpy.random.RandomState(COMM.rank).standard_normal((4, SIZE)).astype('e')

    def loss(factor):  # no layer is scaled before the gradient comes to the normalization
        return F.sum(F.square(F.cast(net.norm(net.first(x)), 'f') - 1)) * factor

    for update in range(6):
        is_bad = update < 3 and COMM.rank == COMM.size - 1
        optimizer.update(loss, numpy.inf if is_bad else 1.0)
    parameters = [param.array.tolist() for param in net.params()]
    return optimizer.initial_scale, optimizer.skipped, optimizer.t, parameters


def main(what):
    if what == 'search':
        found = COMM.gather_obj(search())
    else:
        found = {
            case.__name__: COMM.gather_obj((gradients(case, 'e'), gradients(case, 'f')))
            for case in CASES
        }
    if COMM.rank == 0:
        print(json.dumps(found))


if __name__ == '__main__':
    main(sys.argv[1])
