"""Chainer's own functions whose float16 backward pass is made in float32, where float16 fails.

``F.embed_id`` adds up the rows of an id one after the other, and what is broadcast (a bias, an
activation's scale) as many gradients as it has been repeated; ``F.layer_normalization`` divides by
powers of a standard deviation, which overflows behind small embeddings. What these return is
rounded once, at a scale at which it fits; gradients of leaves of the graph stay in float32.
"""

from chainerlp.gpu import on_gpu
from chainerlp.rounding import to_float32
from chainerlp.scaled_array import MARGIN, ScaledArray, round_to_fit

import chainer
import numpy
from chainer.backends import cuda
from chainer.functions.array.broadcast import BroadcastTo
from chainer.functions.connection.embed_id import EmbedIDFunction
from chainer.functions.math.basic_math import Add
from chainer.functions.normalization.layer_normalization import LayerNormalization


def is_made_in_float32(function):
    """Returns whether the backward pass of a function is made in float32.

    Args:
        function (~chainer.FunctionNode): Any function.
    """
    if isinstance(function, EmbedIDFunction):
        return function.inputs[1].dtype == numpy.float16
    if type(function) not in (LayerNormalization, BroadcastTo, Add):
        return False
    return function.inputs[0].dtype == numpy.float16 and (
        type(function) is not Add or len({x.shape for x in function.inputs}) > 1
    )


def backward_in_float32(function, indexes, gy, margin=MARGIN):
    """Runs a function backward that :func:`is_made_in_float32`.

    Args:
        function (~chainer.FunctionNode): The function.
        indexes (tuple of int): The inputs whose gradients are wanted.
        gy (~chainerlp.scaled_array.ScaledArray): The gradient of its output.
        margin (float): As for :func:`~chainerlp.scaled_array.join`.

    Returns:
        list of ~chainerlp.scaled_array.ScaledArray: A gradient, or ``None``, for each index.
    """
    if isinstance(function, EmbedIDFunction):  # ids, which may come in a variable, have none
        arrays = [_embedding_gradient(function, gy.array) if i == 1 else None for i in indexes]
    elif isinstance(function, LayerNormalization):
        arrays = _layer_normalization_gradients(function, indexes, gy.array)
    else:
        arrays = [_sum_to(function.inputs[index].shape, gy.array) for index in indexes]
    gradients = []
    for index, array in zip(indexes, arrays):
        gradient = None if array is None else ScaledArray(array, gy.scale)
        is_wide = array is not None and array.dtype == numpy.float32
        if is_wide and function.inputs[index].creator_node is not None:
            gradient = round_to_fit(gradient, numpy.float16, margin)
        gradients.append(gradient)
    return gradients


def _embedding_gradient(function, gy):
    ids = function.get_retained_inputs()[0].array.ravel()
    shape = function.inputs[1].shape
    rows = gy.reshape(ids.size, shape[1])
    kept = None if function.ignore_label is None else ids != function.ignore_label
    ids = ids % shape[0]  # Chainer counts negative ids from the end
    if on_gpu(rows):
        rows = rows.astype(numpy.float32)
        if kept is not None:
            ids = cuda.cupy.where(kept, ids, 0)
            rows *= kept[:, None]
        gW = cuda.cupy.zeros(shape, numpy.float32)
        cuda.cupy.add.at(gW, ids, rows)
        return gW
    if kept is not None:
        ids, rows = ids[kept], rows[kept]
    gW = numpy.zeros(shape, numpy.float32)
    if ids.size:
        # All rows of an id at once: one after the other is slow in NumPy.
        order = numpy.argsort(ids, kind='stable')
        starts = numpy.flatnonzero(numpy.diff(ids[order], prepend=-1))
        gW[ids[order][starts]] = numpy.add.reduceat(to_float32(rows[order]), starts, axis=0)
    return gW


def _sum_to(shape, gy):
    if gy.shape == shape:
        return gy
    return chainer.functions.sum_to(to_float32(gy), shape).array


def _layer_normalization_gradients(function, indexes, gy):
    retained = [chainer.Variable(to_float32(v.array)) for v in function.get_retained_inputs()]
    single = _WithRetained(function.eps)
    single.retained = retained
    gradients = single.backward(indexes, (chainer.as_variable(to_float32(gy)),))
    return [gradients[index].array for index in indexes]


class _WithRetained(LayerNormalization):
    """Chainer's function with inputs of float32 in place of those that it was applied to."""

    def get_retained_inputs(self):
        return self.retained
