"""The optimizer wrapper: attach it, and a model trains with adaptive loss scaling."""

import numbers

from chainerlp import backprop, kernels, links, policies

import chainer
import numpy

# Clean updates after which gradients that were made smaller because of overflows grow again.
_GROWTH_INTERVAL = 200
# Backing off further than this would take even the largest gradient out of float16.
_SMALLEST_BACKOFF = 2.0**-30


class AdaptiveLossScaling:
    """Wraps a gradient method, so that every layer of its model scales the gradient it passes down.

    ``setup`` converts the model's links in place (:func:`chainerlp.convert`) and turns on fp32
    updates, which keep float32 copies of float16 parameters. ``update`` then runs the scaled
    backward pass. Everything else (hyperparameters, hooks, ``new_epoch``, ...) is the wrapped
    optimizer's.

    An update whose gradients are not all finite is skipped and counted in ``skipped``, and the
    scales that layers keep between iterations are chosen anew. If that overflows too, all gradients
    are kept smaller by half, again and again if need be, and grow back after 200 clean updates.

    Args:
        optimizer (~chainer.GradientMethod): Any of Chainer's gradient methods.
        policy: How a layer's scale is chosen, one of :mod:`chainerlp.policies`; the paper's
            :class:`~chainerlp.policies.Adaptive` by default.
        initial_scale (float): What the gradient of the loss is multiplied by.
        scale_weights (bool): Whether weight gradients get scales of their own; ``None`` leaves it
            to the policy.

    Attributes:
        actual_optimizer (~chainer.GradientMethod): The wrapped optimizer.
        policy: See above.
        initial_scale (float): See above.
        scale_weights (bool): See above.
        skipped (int): Number of updates that were skipped.
        backoff (float): What all gradients are multiplied by at present because of overflows.
    """

    _OWN = frozenset(
        ['actual_optimizer', 'policy', 'initial_scale', 'scale_weights', 'skipped', 'backoff']
        + ['_clean', '_was_skipped', '_loss_is_finite']
    )

    def __init__(self, optimizer, policy=None, initial_scale=1.0, scale_weights=None):
        innermost = getattr(optimizer, 'actual_optimizer', optimizer)
        if not isinstance(innermost, chainer.GradientMethod):
            kind = type(optimizer).__name__
            raise TypeError(f'AdaptiveLossScaling wraps a chainer.GradientMethod, not {kind}')
        if optimizer._loss_scale is not None:
            raise ValueError(
                'the optimizer has a loss scale of its own: leave out its loss_scaling() and give'
                ' AdaptiveLossScaling an initial_scale'
            )
        self.actual_optimizer = optimizer
        self.policy = policies.Adaptive() if policy is None else policy
        self.initial_scale = _checked_scale(initial_scale)
        self.scale_weights = scale_weights
        self.skipped = 0
        self.backoff = 1.0
        self._clean = 0
        self._was_skipped = False
        self._loss_is_finite = True
        if optimizer.target is not None:
            self._prepare(optimizer.target)

    def __getattr__(self, name):
        if name in self._OWN:  # not there yet: while it is being copied or unpickled
            raise AttributeError(name)
        return getattr(self.actual_optimizer, name)

    def __setattr__(self, name, value):
        if name in self._OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self.actual_optimizer, name, value)

    def setup(self, link):
        """Converts a model's links in place and sets it as the optimizer's target.

        Args:
            link (~chainer.Link): The model.

        Returns:
            AdaptiveLossScaling: The wrapper itself.
        """
        self.actual_optimizer.setup(link)
        self._prepare(link)
        return self

    def _prepare(self, link):
        links.convert(link, self.policy, self.scale_weights)
        self.actual_optimizer.use_fp32_update()

    def loss_scaling(self, interval=1000, scale=None):
        """Sets ``initial_scale``; Chainer's dynamic loss scaling is refused.

        Raises:
            ValueError: If no scale is given: the layers' scales adapt by themselves.
        """
        if scale is None:
            raise ValueError(
                'dynamic loss scaling and AdaptiveLossScaling exclude each other: leave out'
                ' loss_scaling(), or wrap no optimizer'
            )
        self.initial_scale = _checked_scale(scale)

    def set_loss_scale(self, loss_scale):
        """Sets ``initial_scale``, as does an updater that is given a ``loss_scale``."""
        self.loss_scaling(scale=loss_scale)

    def update(self, lossfun=None, *args, **kwds):
        """Updates the parameters, as the wrapped optimizer does.

        Args:
            lossfun (callable): Loss function. Without it, gradients are taken as they are: after
                :meth:`backward`, in a loop of one's own.
            *args: Arguments of the loss function.
            **kwds: Keyword arguments of the loss function.
        """
        if lossfun is not None:
            loss = lossfun(*args, **kwds)
            self.target.cleargrads()
            self.backward(loss)
            del loss
        if self._gradients_are_finite():
            self._note_clean()
            self._unscale_float32()
            self.actual_optimizer.update()
        else:
            self._note_overflow()
            self.actual_optimizer.t += 1

    def backward(self, loss):
        """Runs the scaled backward pass, :func:`chainerlp.backprop.backward`, from a loss.

        Args:
            loss (~chainer.Variable): The loss.
        """
        self._loss_is_finite = kernels.all_finite(loss.array)
        backprop.backward(loss, self.initial_scale, backoff=self.backoff)

    def _gradients_are_finite(self):
        finite = True
        for param in self.target.params():
            if param.grad is not None:
                with chainer.using_device(param.device):
                    finite = finite & kernels.all_finite(param.grad)
        return bool(finite)

    def _unscale_float32(self):
        # Chainer divides a float16 parameter's gradient in float32, in its master copy. It would
        # divide a float32 one in place and leave its scale standing, for hooks to multiply by.
        for param in self.target.params():
            if param.grad is not None and param.grad.dtype != numpy.float16:
                if param._loss_scale is not None:
                    param.grad /= param._loss_scale
                    param._loss_scale = None

    def _note_clean(self):
        self._was_skipped = False
        self._clean += 1
        if self._clean % _GROWTH_INTERVAL == 0:
            self.backoff = min(1.0, self.backoff * 2)

    def _note_overflow(self):
        self.skipped += 1
        self._clean = 0
        for link in self.target.links():
            if isinstance(link, links.ScaledLink):
                link.layer_scale.forget()
        # A loss that is not finite is no matter of scales.
        loss_is_finite = bool(self._loss_is_finite)
        if self._was_skipped and loss_is_finite:
            self.backoff = max(self.backoff / 2, _SMALLEST_BACKOFF)
        self._was_skipped = loss_is_finite


def _checked_scale(scale):
    is_number = isinstance(scale, numbers.Real) and not isinstance(scale, bool)
    if not is_number or not 0 < scale < numpy.inf:
        raise ValueError(f'initial_scale must be a positive, finite number, not {scale!r}')
    return float(scale)
