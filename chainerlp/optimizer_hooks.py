"""Optimizer hooks that know that gradients are scaled, named as Chainer's own.

Chainer's hooks, but for ``WeightDecay``, take a gradient for the true one. These do what Chainer's
do to the true gradient: under :class:`~chainerlp.AdaptiveLossScaling` in float32, on the master
copies, where nothing is rounded; under an optimizer of Chainer's own with a loss scale, on a
float32 copy of gradient and parameter.
"""

from chainerlp import backprop, rounding

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
            true.grad = backprop.unscaled_grad(param)
            super().__call__(rule, true)
            scaled = true.grad * param._loss_scale
            param.grad = rounding.from_float32(scaled, param.grad.dtype)


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

    The norm is that of all true gradients, in float32. A scaled gradient is not multiplied but
    carries a larger scale, so that clipping rounds nothing.

    Args:
        threshold (float): L2 norm threshold.
    """

    def __call__(self, opt):
        """Clips the gradients of an optimizer's target."""
        params = [p for p in opt.target.params(include_uninit=False) if p.grad is not None]
        if not params:
            return
        with chainer.using_device(params[0].device):
            xp = params[0].xp
            norm = xp.sqrt(sum(_square_norm(backprop.unscaled_grad(param)) for param in params))
            rate = self.threshold / xp.maximum(norm, self.threshold)
            rate = float(rate) if xp is numpy else rate
            for param in params:
                if param._loss_scale is None:
                    param.grad *= rate
                else:
                    param._loss_scale = param._loss_scale / rate


def _square_norm(gradient):
    flat = gradient.ravel()
    return flat.dot(flat)


# Chainer's own that take a scaled gradient for the true one, and what does their work here.
SCALE_AWARE = {
    getattr(optimizer_hooks, hook.__name__): hook
    for hook in (GradientClipping, GradientHardClipping, GradientNoise, GradientLARS, Lasso)
}
