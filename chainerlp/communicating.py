"""Functions whose backward pass sends gradients to other workers, where other scales are carried.

ChainerMN's are known here: ``MultiNodeBatchNormalization`` and ``allgather``, ``alltoall``,
``bcast``, ``gather``, ``scatter`` put together what comes from all workers, so these agree on a
scale first; ``recv`` sends gradients back to where ``send`` was called, and the scale before them.
Every worker comes to them in the same order, or ChainerMN itself would wait forever. To exchange a
scale, a worker on a GPU has to wait for the device.
"""

import functools

from chainerlp import agreement

from chainer import backend

_COLLECTIVE = frozenset(
    ['AllGather', 'AllToAll', 'Bcast', 'Gather', 'Scatter', 'MultiNodeBNImplSelector']
)
_POINT_TO_POINT = frozenset(['Send', 'Recv'])


def communicates(function):
    """Returns whether a function's backward pass exchanges gradients with other workers.

    Args:
        function (~chainer.FunctionNode): Any function of a graph.
    """
    return _end(function) is not None


def exchange_scales(function, gradients):
    """Brings gradients to the scale that the workers at a function's other ends bring theirs to.

    Args:
        function (~chainer.FunctionNode): One that :func:`communicates`.
        gradients (list of ~chainerlp.scaled_array.ScaledArray): The gradients of its outputs, all
            at one scale.

    Returns:
        tuple: The list of gradients, and the total scale that the gradients of the function's
        inputs will carry.
    """
    scale = gradients[0].scale
    kind, end = _end(function)
    if kind == 'Recv':
        end.comm.send_obj(float(scale), end.peer_rank, end.peer_tag)
        return gradients, scale
    if kind == 'Send':  # what it returned is an empty variable, and so is the gradient of that
        return gradients, end.comm.recv_obj(end.peer_rank, tag=end.peer_tag)
    arrays = [gradient.array for gradient in gradients]
    xp = backend.get_array_module(*arrays)
    largest = functools.reduce(xp.maximum, map(agreement.largest_magnitude, arrays))
    dtype = min((array.dtype for array in arrays), key=lambda each: each.itemsize)
    common = agreement.agree([largest], [scale], [dtype], end.comm)[0]
    return [gradient.to(common) for gradient in gradients], common


def _end(function):
    """Returns what of ChainerMN communicates in a function, after the name of its class."""
    # ChainerMN's are old-style functions, or choose how batch normalization is computed. They are
    # known by name, since importing ChainerMN takes an MPI.
    for part in (getattr(function, 'function', None), getattr(function, '_impl_selector', None)):
        for each in type(part).__mro__:
            is_known = each.__name__ in _COLLECTIVE or each.__name__ in _POINT_TO_POINT
            if is_known and each.__module__.startswith('chainermn.'):
                return each.__name__, part
    return None
