"""Optimizer hooks that know of loss scales, named as Chainer's own.

Under :class:`~chainerlp.AdaptiveLossScaling` every hook sees float32 master weights and true
gradients, so that Chainer's own are right there, too. Under an optimizer of Chainer's with a loss
scale they are not, but for ``WeightDecay``: they take a scaled gradient for the true one. These do
to the true gradient what Chainer's do, and may be used under both.
"""

from chainerlp.gpu import on_gpu
from chainerlp.master_weights import is_trained
from chainerlp.rounding import from_float32
from chainerlp.statistics import second_moment
from chainerlp.true_gradients import gradient_of

import chainer
import numpy
from chainer import optimizer_hooks


class _OnTrueGradient:
    """Mixed in before one of Chainer's hooks for each parameter."""

    def __call__(self, rule: chainer.UpdateRule, param: chainer.Parameter) -> None:
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

    The norm is that of all true gradients, but for those of frozen parameters, and is summed in
    float64, where no square of a float32 number overflows. A gradient with a loss scale is not
    multiplied but gets a larger scale, so that clipping rounds nothing. It does not wait for the
    device.

    Args:
        threshold (float): L2 norm threshold.
    """

    def __call__(self, opt: chainer.GradientMethod) -> None:
        """Clips the gradients of an optimizer's target."""
        trained = filter(is_trained, opt.target.params(include_uninit=False))  # type: ignore[arg-type]
        params = [param for param in trained if param.grad is not None]
        if not params:
            return
        home = params[0].device
        with chainer.using_device(home):
            squares = [_sum_of_squares(param) for param in params]
            norm = sum(home.send(s) if on_gpu(s) else s for s in squares) ** 0.5
            rate = self.threshold / home.xp.maximum(norm, self.threshold)
        for param in params:
            with chainer.using_device(param.device):
                factor = param.device.send(rate.astype('f')) if on_gpu(rate) else float(rate)
                if param._loss_scale is None:
                    param.grad *= factor
                else:
                    param._loss_scale = param._loss_scale / factor


def _sum_of_squares(param):
    gradient = gradient_of(param)
    with chainer.using_device(param.device):
        return second_moment(gradient.array) * gradient.array.size / gradient.scale**2
