"""Running one function node backward as Chainer does: its own backward, hooks, debug mode."""

import contextlib
import traceback

from chainerlp.scaled_array import ScaledArray
from chainerlp.statistics import all_finite

import chainer
from chainer import backend


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
