"""Optimizer hooks that know that gradients are scaled, named as Chainer's own.

Chainer's hooks, but for ``WeightDecay``, take a gradient for the true one. These do what Chainer's
do to the true gradient: under :class:`~chainerlp.AdaptiveLossScaling` in float32, on the master
copies, where nothing is rounded; under an optimizer of Chainer's own with a loss scale, on a
float32 copy of gradient and parameter.
"""

import functools

from chainerlp.float16 import from_float32
from chainerlp.gpu import on_gpu
from chainerlp.scaled_array import gradient_of

import chainer
import numpy
from chainer import optimizer_hooks


class _OnTrueGradient:
    """Mixed in before one of Chainer's hooks for each parameter."""

    def __call__(self, rule, param):
        if param._loss_scale is None or param.grad is None:
            return super().__call__(rule, param)
        with chainer.using_device(param.device):
            true = chainer.Variable(param.array.astype(numpy.float32), grad=None)
            true.grad = gradient_of(param).true()
            super().__call__(rule, true)
            scaled = true.grad * param._loss_scale
            param.grad = from_float32(scaled, param.grad.dtype)


class GradientHardClipping(_OnTrueGradient, optimizer_hooks.GradientHardClipping):
    """:class:`chainer.optimizer_hooks.GradientHardClipping` of the true gradient."""


class GradientNoise(_OnTrueGradient, optimizer_hooks.GradientNoise):
    """:class:`chainer.optimizer_hooks.GradientNoise` on the true gradient."""


class GradientLARS(_OnTrueGradient, optimizer_hooks.GradientLARS):
    """:class:`chainer.optimizer_hooks.GradientLARS` of the true gradient."""


class Lasso(_OnTrueGradient, optimizer_hooks.Lasso):
    """:class:`chainer.optimizer_hooks.Lasso` on the true gradient."""


class GradientClipping(optimizer_hooks.GradientClipping):
    """:class:`chainer.optimizer_hooks.GradientClipping` of the true gradients.

    The norm is that of all true gradients, in float32, but for those of frozen parameters. A scaled
    gradient is not multiplied but carries a larger scale, so that clipping rounds nothing.

    Args:
        threshold (float): L2 norm threshold.
    """

    def __call__(self, opt):
        """Clips the gradients of an optimizer's target."""
        params = [p for p in opt.target.params(include_uninit=False) if _is_clipped(p)]
        if not params:
            return
        with chainer.using_device(params[0].device):
            xp = params[0].xp
            norm = xp.sqrt(sum(_square_norm(gradient_of(param).true()) for param in params))
            rate = self.threshold / xp.maximum(norm, self.threshold)
            rate = rate if on_gpu(rate) else float(rate)
            for param in params:
                if param._loss_scale is None:
                    param.grad *= rate
                else:
                    param._loss_scale = param._loss_scale / rate


def _is_clipped(param):
    return param.grad is not None and param.update_rule is not None and param.update_rule.enabled


def _square_norm(gradient):
    flat = gradient.ravel()
    return flat.dot(flat)


# Chainer's own that take a scaled gradient for the true one, and what does their work here.
SCALE_AWARE = {
    getattr(optimizer_hooks, hook.__name__): hook
    for hook in (GradientClipping, GradientHardClipping, GradientNoise, GradientLARS, Lasso)
}


def check_awareness(hook):
    """Makes sure that a hook is none of Chainer's that take a scaled gradient for the true one.

    Args:
        hook (callable): An optimizer hook.

    Raises:
        TypeError: If it is; names the one to add instead.
    """
    for unaware, aware in SCALE_AWARE.items():
        if isinstance(hook, unaware) and not isinstance(hook, aware):
            raise TypeError(
                f'chainer.optimizer_hooks.{unaware.__name__} takes scaled gradients for true'
                f' ones: add chainerlp.optimizer_hooks.{aware.__name__} instead'
            )


def add_to_update_rules(params, hook, name=None, timing='auto'):
    """Adds a hook for each parameter to the update rules, as Chainer adds one to an optimizer.

    Args:
        params (iterable of ~chainer.Parameter): Parameters with update rules.
        hook (callable): The hook.
        name (str): Its name; ``hook.name`` by default.
        timing (str): ``'pre'``, ``'post'`` or ``'auto'``, as in Chainer.
    """
    if name is None:
        name = getattr(hook, 'name', getattr(hook, '__name__', None))
    timing = getattr(hook, 'timing', 'pre') if timing == 'auto' else timing
    if timing == 'pre':
        # A rule counts the update before it calls its hooks, an optimizer after it: without this,
        # the decay of GradientNoise would be one update ahead.
        hook = functools.partial(_call_before_count, hook)
    for param in params:
        param.update_rule.add_hook(hook, name, timing)


def _call_before_count(hook, rule, param):
    rule.t -= 1
    try:
        hook(rule, param)
    finally:
        rule.t += 1
