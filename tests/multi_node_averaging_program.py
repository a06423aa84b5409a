"""Averages gradients with ChainerMN; run by test_multi_node.py under mpiexec.

Rank 0 prints, for each parameter, what the workers' gradients were, and what became of them: where
they are summed in their own dtype, and where in float16.
"""

import json

import chainerlp
from chainerlp import multi_node, policies

import chainer
import chainer.links as L
import chainermn
import numpy
from chainer import optimizers

COMM = chainermn.create_communicator('naive')
SHAPE = (4, 6)


def random(seed, magnitude):
    return numpy.random.RandomState(seed).uniform(-magnitude, magnitude, SHAPE).astype('e')


class Layers(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope(), chainer.using_config('dtype', chainer.mixed16):
            self.first, self.second, self.third = (L.Linear(6, 4) for _ in range(3))


class HalfSums:
    """A communicator that converts gradients to float16 for the mean, as pure_nccl may."""

    allreduce_grad_dtype = numpy.dtype('float16')

    def __getattr__(self, name):
        return getattr(COMM, name)

    def multi_node_mean_grad(self, model, zero_fill=False):
        for _, param in sorted(model.namedparams()):
            if param.grad is not None:
                everyones = COMM.mpi_comm.allgather(param.grad.astype(self.allreduce_grad_dtype))
                mean = sum(everyones[1:], everyones[0]) / numpy.float16(COMM.size)
                param.grad[...] = mean


def set_gradient(param, gradient, scale):
    """Sets a gradient as Chainer's backward pass with a loss scale would have left it."""
    param.grad = gradient
    param._loss_scale = scale


def without_gradients(model):
    """Only the last worker has one for the first layer, nobody for the second."""
    model.cleargrads()
    if COMM.rank == COMM.size - 1:
        set_gradient(model.first.W, random(1, 1.0), 64.0)
    set_gradient(model.third.W, random(2, 1.0), 2.0 ** (4 * COMM.rank))


def shared(model):
    model.third.W = model.first.W
    set_gradient(model.first.W, random(COMM.rank, 30000.0), 2.0 ** (4 * COMM.rank))


def zero_on_one(model):
    """The one that has only zeros carries the smallest scale."""
    is_zero = COMM.rank == 0
    gradient = numpy.zeros(SHAPE, 'e') if is_zero else random(COMM.rank, 3e4)
    set_gradient(model.first.W, gradient, 1.0 if is_zero else 2.0**40)


def zero_on_all(model):
    set_gradient(model.first.W, numpy.zeros(SHAPE, 'e'), 2.0**COMM.rank)


def far_apart(model):
    """True gradients of 1 and of 1e-5; what they carry brings both near the largest half."""
    set_gradient(model.first.W, random(COMM.rank, 6e4), 2.0 ** (15 + 17 * COMM.rank))


def large(model):
    """Their mean is a half, their sum is none."""
    set_gradient(model.first.W, numpy.full(SHAPE, 40000, 'e'), 1.0)


def views(model):
    """A gradient that two parameters have, a transposed one, and one that cannot be written to."""
    scale = 2.0**COMM.rank
    both = random(COMM.rank, 100.0)
    set_gradient(model.first.W, both, scale)
    set_gradient(model.second.W, both, scale)
    transposed = numpy.ascontiguousarray(random(COMM.rank + 9, 100.0).T).T
    set_gradient(model.third.W, transposed, scale)
    row = numpy.broadcast_to(numpy.float16(3 * (COMM.rank + 1)), (4,))
    set_gradient(model.third.b, row, scale)
    set_gradient(model.first.b, numpy.arange(8, dtype='e')[::2], scale)


CASES = [without_gradients, shared, zero_on_one, zero_on_all, far_apart, large, views]


def average(case, zero_fill, communicator):
    model = Layers()
    optimizer = chainermn.create_multi_node_optimizer(
        optimizers.SGD(0.1), communicator, zero_fill=zero_fill
    )
    chainerlp.AdaptiveLossScaling(optimizer, policies.Fixed(1.0)).setup(model)
    model.zerograds()
    case(model)
    optimizer.is_changed(model)  # as in a first update, in which nothing is averaged
    before = {path: as_list(chainerlp.unscaled_grad(p)) for path, p in model.namedparams()}
    is_averaged, _ = multi_node.mean_gradients(optimizer)
    assert is_averaged
    after = {path: as_list(chainerlp.unscaled_grad(p)) for path, p in model.namedparams()}
    return before, after


def main():
    found = {
        f'{case.__name__} {zero_fill} {name}': COMM.gather_obj(average(case, zero_fill, each))
        for case in CASES
        for zero_fill in (False, True)
        for name, each in (('own', COMM), ('float16', HalfSums()))
    }
    if COMM.rank == 0:
        print(json.dumps(found))


def as_list(array):
    return None if array is None else array.tolist()


if __name__ == '__main__':
    main()
