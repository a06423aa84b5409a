"""An optimizer's update, made in float32 for a group of parameters after another.

While a parameter is updated it holds its float32 master weight and its true gradient. The true
gradients of a whole model would take as much memory as its masters, so they are formed for a group
and dropped with it.
"""

import contextlib

from chainerlp import master_weights
from chainerlp.gated_update import gated, writes_to_gradients_alone
from chainerlp.rounding import from_float32, to_float32
from chainerlp.true_gradients import form, gradient_of, hold_again

import chainer
import numpy

_GROUP_SIZE = 1 << 20  # elements: 4 MiB of true gradients

# What Chainer's update is made of. An optimizer that has one of its own does it as a whole.
_PARTS = (
    *('update', 'call_hooks', 'call_hook', 'reallocate_cleared_grads'),
    *('check_nan_in_grads', 'is_safe_to_update', 'update_loss_scale'),
)


def make_update(optimizer, flag=None):
    """Makes an optimizer's update with the gradients that its target has.

    It is made as a whole, by ``optimizer.update()``, if the optimizer has hooks, which see all
    parameters, or parts of its own. True gradients, as hooks leave them, then stay.

    Args:
        optimizer (~chainer.GradientMethod): The optimizer.
        flag (0-d bool array): On a GPU, whether gradients are finite: if not, the device changes
            nothing (:mod:`~chainerlp.gated_update`). ``None``: they are.

    Returns:
        list of bool or 0-d bool array: See :func:`~chainerlp.master_weights.substituted`.
    """
    hookable = optimizer._hookable
    hooks = [*hookable._pre_update_hooks.values(), *hookable._post_update_hooks.values()]
    params = list(optimizer.target.params())
    with master_weights.substituted(params) as saturated:
        if hooks or not _is_chainers(optimizer):
            by_rules_alone = _is_chainers(optimizer) and all(map(writes_to_gradients_alone, hooks))
            form(params)
            with _frozen_in_float32(params), gated(params, flag, by_rules_alone):
                optimizer.update()
        else:
            optimizer.t += 1
            for group in _groups(params):
                _update_group(group, flag)
    return saturated


def _update_group(group, flag):
    _fill_gaps(group)
    formed = form([*filter(master_weights.is_trained, group)])
    with gated(group, flag):
        for param in group:
            param.update()
    # A hook of a rule may have changed it.
    hold_again([each for each in formed if not _has_hooks(each[0].update_rule)])


def _is_chainers(optimizer):
    return not vars(optimizer).keys() & set(_PARTS) and all(
        getattr(type(optimizer), part) is getattr(chainer.GradientMethod, part) for part in _PARTS
    )


def _has_hooks(rule):
    hookable = rule._hookable
    return hookable._pre_update_hooks or hookable._post_update_hooks


@contextlib.contextmanager
def _frozen_in_float32(params):
    """While it lasts, what is not trained is float32, as its gradient is: hooks look at both."""
    frozen = [
        (param, param.array)
        for param in params
        if param.array is not None
        and param.dtype == numpy.float16
        and not master_weights.is_trained(param)
    ]
    for param, half in frozen:
        with chainer.using_device(param.device):
            param.array = to_float32(half)
    try:
        yield
    finally:
        for param, half in frozen:
            with chainer.using_device(param.device):
                half[...] = from_float32(param.array, numpy.float16)
            param.array = half


def _groups(params):
    """Yields the parameters in order, as many at once as the true gradients may be of."""
    group, size = [], 0
    for param in params:
        own_size = 0 if param.array is None else param.size
        if group and size + own_size > _GROUP_SIZE:
            yield group
            group, size = [], 0
        group.append(param)
        size += own_size
    if group:
        yield group


def _fill_gaps(params):
    """Gives parameters without a gradient zeros, as Chainer does: momentum goes on."""
    for param in params:
        if param.array is not None and gradient_of(param) is None:
            with chainer.using_device(param.device):
                param.grad = param.xp.zeros_like(param.array)
