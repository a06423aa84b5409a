"""Running the functions backward that choose no scale, as Chainer does: hooks and debug mode too.

They run their own backward, but for some of Chainer's that are made in float32, since float16
fails in them: ``F.embed_id`` adds up the rows of an id one after the other, and what is broadcast
(a bias, an activation's scale) as many gradients as it has been repeated; ``F.layer_normalization``
divides by powers of a standard deviation, which overflows behind small embeddings. What these
return is rounded once, at a scale at which it fits; gradients of leaves of the graph stay float32.
"""

import contextlib
import traceback
from typing import Optional

from chainerlp.gpu import on_gpu
from chainerlp.rounding import to_float32
from chainerlp.scaled_array import MARGIN, ScaledArray, round_to_fit
from chainerlp.statistics import all_finite

import chainer
import numpy
from chainer import backend
from chainer.backends import cuda
from chainer.functions.array.broadcast import BroadcastTo
from chainer.functions.connection.embed_id import EmbedIDFunction
from chainer.functions.math.basic_math import Add
from chainer.functions.normalization.layer_normalization import LayerNormalization


def needs_true_gradient(function):
    """Returns whether a function asks for true gradients, since its backward is not linear in them.

    It does so by a class attribute ``needs_true_gradient = True``.
    """
    function = getattr(function, 'function', function)  # of an old-style one, what is adapted
    return getattr(function, 'needs_true_gradient', False)


def plain_backward(function, indexes, out_grad, scale):
    """Calls a function's own backward and returns one gradient (or ``None``) for each index."""
    grad_outputs = tuple(
        None if array is None else chainer.as_variable(array) for array in out_grad
    )
    own = type(function).backward_accumulate
    if own is not chainer.FunctionNode.backward_accumulate:
        gradients = function.backward_accumulate(indexes, grad_outputs, (None,) * len(indexes))
    else:
        gradients = function.backward(indexes, grad_outputs)
        if len(gradients) == len(function.inputs):
            gradients = [gradients[i] for i in indexes]
        elif len(gradients) != len(indexes):
            raise ValueError(
                f'backward of {function.label} returned {len(gradients)} gradients, not'
                f' {len(function.inputs)}, one an input, or {len(indexes)}, one an input that needs'
                ' it'
            )
    return [
        None if g is None or g.raw_array is None else ScaledArray(g.raw_array, scale)
        for g in gradients
    ]


def hooks_of(function):
    """Returns the function hooks that are to be called with a function."""
    hooks = chainer.get_function_hooks()
    if function._n_local_function_hooks:
        hooks = {**hooks, **function.local_function_hooks}
    return list(hooks.values())


@contextlib.contextmanager
def stack_shown(function):
    """Adds to an error where the function was called, if Chainer noted it (debug mode)."""
    try:
        yield
    except Exception as error:
        if function.stack is not None:
            stack = ''.join(traceback.format_list(function.stack[:-1]))
            said = error.args[0] if error.args else ''
            first = f'{said}\n{function.label} was called here:\n{stack}'
            error.args = (first, *error.args[1:])
        raise


def check_values(function, pairs):
    """Raises RuntimeError if a gradient has a NaN, as Chainer does in debug mode."""
    for _, gradient in pairs:
        if bool(backend.get_array_module(gradient.array).isnan(gradient.array).any()):
            raise RuntimeError(f'NaN is detected on backward computation of {function.label}')


def non_finite_gradient(function, pairs):
    """Returns what a function is if its gradients are not finite, otherwise ``None``."""
    for index, gradient in pairs:
        if not bool(all_finite(gradient.array)):
            where = ''
            if function.stack:
                frame = function.stack[-1]
                where = f' ({frame.filename}:{frame.lineno})'
            return f'the gradient of input {index} of {function.label}{where}'
    return None


def is_made_in_float32(function: chainer.FunctionNode) -> bool:
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


def backward_in_float32(
    function: chainer.FunctionNode,
    indexes: tuple[int, ...],
    gy: ScaledArray,
    margin: float = MARGIN,
) -> list[Optional[ScaledArray]]:
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
    single = LayerNormalization(function.eps)
    retained = [chainer.Variable(to_float32(v.array)) for v in function.get_retained_inputs()]
    single.get_retained_inputs = lambda: retained
    gradients = single.backward(indexes, (chainer.as_variable(to_float32(gy)),))
    return [gradients[index].array for index in indexes]
