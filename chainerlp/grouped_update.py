"""An optimizer's update, made in float32 for a group of parameters after another.

While a parameter is updated it holds its float32 master weight and its true gradient. The true
gradients of a whole model would take as much memory as its masters, so they are formed for a group
and dropped with it.
"""

from chainerlp import master_weights
from chainerlp.gated_update import gated, writes_to_gradients_alone
from chainerlp.true_gradients import form, formed, gradient_of

import chainer

_GROUP_SIZE = 1 << 20  # elements: 4 MiB of true gradients

# What Chainer's update is made of. An optimizer that has one of its own does it as a whole.
_PARTS = (
    *('update', 'call_hooks', 'call_hook', 'reallocate_cleared_grads'),
    *('check_nan_in_grads', 'is_safe_to_update', 'update_loss_scale'),
)


def make_update(optimizer, flag=None):
    """Makes an optimizer's update with the gradients that its target has.

    It is made as a whole, by ``optimizer.update()``, if the optimizer has parts of its own, or a
    hook that may look at all parameters at once. True gradients, as hooks leave them, then stay.

    Args:
        optimizer (~chainer.GradientMethod): The optimizer.
        flag (0-d bool array): On a GPU, whether gradients are finite: if not, the device changes
            nothing (:mod:`~chainerlp.gated_update`). ``None``: they are.

    Returns:
        list of bool or 0-d bool array: See :func:`~chainerlp.master_weights.substituted`.
    """
    hookable = optimizer._hookable
    before, after = hookable._pre_update_hooks.values(), hookable._post_update_hooks.values()
    hooks = [*before, *after]
    params = list(optimizer.target.params())
    is_chainers = all(
        getattr(type(optimizer), part) is getattr(chainer.GradientMethod, part) for part in _PARTS
    )
    by_rules_alone = is_chainers and all(map(writes_to_gradients_alone, hooks))
    is_for_each = all(getattr(hook, 'call_for_each_param', False) for hook in hooks)
    with master_weights.substituted(params) as saturated:
        if by_rules_alone and is_for_each:
            for group in _groups(params):
                _fill_gaps(group)
                with formed(group), gated(group, flag):
                    _call_for_each(before, group)
                    for param in group:
                        param.update()
                    _call_for_each(after, group)
            optimizer.t += 1
        else:
            form(params)
            with gated(params, flag, by_rules_alone):
                optimizer.update()
    return saturated


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


def _call_for_each(hooks, params):
    for hook in hooks:
        for param in params:
            hook(param.update_rule, param)


def _fill_gaps(params):
    """Gives parameters without a gradient zeros, as Chainer does: momentum goes on."""
    for param in params:
        if param.array is not None and gradient_of(param) is None:
            with chainer.using_device(param.device):
                param.grad = param.xp.zeros_like(param.array)
