"""The optimizer wrapper: attach it, and a model trains with adaptive loss scaling."""

import copy
import functools
import numbers
import sys
import warnings

from chainerlp import (
    backprop,
    initial_scale,
    kernels,
    links,
    masters,
    optimizer_hooks,
    policies,
    workers,
)
from chainerlp.recovery import Recovery

import chainer
import numpy

# They hand their gradients to update(), which takes those of backward().
_UNSCALED_UPDATERS = (
    'chainer.training.updaters.parallel_updater',
    'chainer.training.updaters.multiprocess_parallel_updater',
)


class AdaptiveLossScaling:
    """Wraps a gradient method, so that every layer of its model scales the gradient it passes down.

    ``setup`` converts the model's links in place (:func:`chainerlp.convert`) and turns on fp32
    updates, which keep float32 copies of float16 parameters. ``update`` then runs the scaled
    backward pass. Everything else (hyperparameters, hooks, ``new_epoch``, ...) is the wrapped
    optimizer's.

    An update whose gradients are not all finite is skipped and counted, and the scales that layers
    keep between iterations are chosen anew; if that overflows too, all gradients are kept smaller
    for a while (:class:`~chainerlp.recovery.Recovery`). Snapshots hold the scales, the counts and
    the float32 copies, so that a resumed training goes on as if it had not been interrupted.

    Args:
        optimizer (~chainer.GradientMethod): Any of Chainer's gradient methods, or what
            ``chainermn.create_multi_node_optimizer`` makes of one.
        policy: How a layer's scale is chosen, one of :mod:`chainerlp.policies`; the paper's
            :class:`~chainerlp.policies.Adaptive` by default.
        initial_scale (float or str): What the gradient of the loss is multiplied by. ``'auto'``
            finds it in the first backward pass whose gradients are finite: the largest at which
            nothing overflows before the first layer is there to choose a scale.
        scale_weights (bool): Whether weight gradients get scales of their own; ``None`` leaves it
            to the policy.

    Attributes:
        actual_optimizer (~chainer.GradientMethod): The wrapped optimizer.
        policy: See above.
        initial_scale (float): See above.
        scale_weights (bool): See above.
        recovery (~chainerlp.recovery.Recovery): What became of overflows.
    """

    _OWN = frozenset(
        ['actual_optimizer', 'policy', 'initial_scale', 'scale_weights', 'recovery']
        + ['_loss_is_finite']
    )

    def __init__(self, optimizer, policy=None, initial_scale=1.0, scale_weights=None):
        innermost = getattr(optimizer, 'actual_optimizer', optimizer)
        if hasattr(optimizer, 'communicated_target'):
            raise TypeError(
                'AdaptiveLossScaling wraps no optimizer with double buffering: its gradients belong'
                ' to the update before; leave out double_buffering=True'
            )
        is_wrapped = isinstance(optimizer, AdaptiveLossScaling)
        if is_wrapped or not isinstance(innermost, chainer.GradientMethod):
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
        self.recovery = Recovery()
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

    @property
    def skipped(self):
        """int: Number of updates that were skipped because a gradient was not finite."""
        return self.recovery.skipped

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

    def _innermost(self):
        return (
            self.actual_optimizer.actual_optimizer if self._has_workers() else self.actual_optimizer
        )

    def _has_workers(self):
        return isinstance(vars(self.actual_optimizer).get('actual_optimizer'), chainer.Optimizer)

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

    def add_hook(self, hook, name=None, timing='auto'):
        """Adds an optimizer hook, such as ``chainer.optimizer_hooks.WeightDecay``.

        A hook for each parameter is called by the update rules, on the float32 master copy and its
        true gradient. One for the whole optimizer sees scaled gradients.

        Args:
            hook (callable): The hook.
            name (str): Its name; ``hook.name`` by default.
            timing (str): ``'pre'``, ``'post'`` or ``'auto'``, as in Chainer.

        Raises:
            TypeError: If it is one of Chainer's that take a scaled gradient for the true one.
        """
        for unaware, aware in optimizer_hooks.SCALE_AWARE.items():
            if isinstance(hook, unaware) and not isinstance(hook, aware):
                raise TypeError(
                    f'chainer.optimizer_hooks.{unaware.__name__} takes scaled gradients for true'
                    f' ones: add chainerlp.optimizer_hooks.{aware.__name__} instead'
                )
        if not getattr(hook, 'call_for_each_param', False):
            self.actual_optimizer.add_hook(hook, name, timing)
            return
        self.actual_optimizer._check_set_up()
        name = getattr(hook, 'name', None) if name is None else name
        timing = getattr(hook, 'timing', 'pre') if timing == 'auto' else timing
        if timing == 'pre':
            hook = functools.partial(_call_counting_from_zero, hook)
        for param in self.target.params():
            param.update_rule.add_hook(hook, name, timing)

    def remove_hook(self, name):
        """Removes a hook by its name."""
        try:
            self.actual_optimizer.remove_hook(name)
        except KeyError:
            for param in self.target.params():
                param.update_rule.remove_hook(name)

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
        else:
            self._check_who_calls(sys._getframe(1).f_globals.get('__name__', ''))
        if self._has_workers() and not workers.mean_gradients(self.actual_optimizer):
            return
        if self._gradients_are_finite():
            self.recovery.note_clean()
            self._unscale_float32()
            self._innermost().update()
        else:
            self.recovery.note_overflow(bool(self._loss_is_finite))
            for _, layer_scale in self._layer_scales():
                layer_scale.forget()
            self.actual_optimizer.t += 1

    def backward(self, loss, **kwargs):
        """Runs the scaled backward pass, :func:`chainerlp.backprop.backward`, from a loss.

        Args:
            loss (~chainer.Variable): The loss.
            **kwargs: ``retain_grad``, as there.
        """
        self._loss_is_finite = kernels.all_finite(loss.array)
        if self.initial_scale == 'auto' and bool(self._loss_is_finite):
            largest = getattr(self.policy, 'max_total_scale', numpy.inf)
            self.initial_scale = initial_scale.find(loss, largest) or 'auto'
        scale = 1.0 if self.initial_scale == 'auto' else self.initial_scale
        backprop.backward(loss, scale, backoff=self.recovery.backoff, **kwargs)

    def _check_who_calls(self, module):
        if module in _UNSCALED_UPDATERS:
            raise RuntimeError(
                f'{module.rpartition(".")[-1]} runs loss.backward(), in which no layer is scaled:'
                ' use ChainerMN, AdaptiveLossScaling(create_multi_node_optimizer(...)), under'
                ' mpiexec, or one device and a StandardUpdater'
            )
        halves = [p for p in self.target.params() if p.grad is not None and p.dtype == 'float16']
        if halves and all(param._loss_scale is None for param in halves):
            warnings.warn(
                'update() was called with gradients of loss.backward(), in which no layer is'
                ' scaled: call optimizer.backward(loss) instead',
                RuntimeWarning,
                stacklevel=3,
            )

    def _gradients_are_finite(self):
        finite = True
        for param in self.target.params():
            if param.grad is not None and _is_trained(param):
                with chainer.using_device(param.device):
                    finite = finite & kernels.all_finite(param.grad)
        return bool(finite)

    def _unscale_float32(self):
        # Chainer divides a float16 parameter's gradient in float32, in its master copy. It would
        # divide a float32 one in place and leave its scale standing, for hooks to multiply by.
        for param in self.target.params():
            if param.grad is not None and param.grad.dtype != numpy.float16:
                if param._loss_scale is not None:
                    # Not in place: the array may be another parameter's gradient too (p + q), or
                    # a read-only view (of a sum).
                    true = param.grad.copy()
                    true /= param._loss_scale
                    param.grad = true
                    param._loss_scale = None

    def serialize(self, serializer):
        """Saves or loads the state: the wrapped optimizer's, and what a wrapper adds to it.

        A snapshot of an unwrapped optimizer is loaded with a warning; scales are then chosen anew,
        and float32 copies made from the float16 parameters. A snapshot of a wrapped one loads into
        an unwrapped one, which takes no notice of what was added.
        """
        self.actual_optimizer.serialize(serializer)
        try:
            self._serialize_own(serializer['adaptive_loss_scaling'])
        except KeyError:
            warnings.warn(
                'the snapshot was made without AdaptiveLossScaling: scales are chosen anew',
                RuntimeWarning,
                stacklevel=2,
            )
            self._begin_anew()

    def _begin_anew(self):
        for _, layer_scale in self._layer_scales():
            layer_scale.forget()
        for param in self.target.params():
            if param.update_rule is not None:
                param.update_rule._fp32_param = None

    def _serialize_own(self, serializer):
        self.recovery.serialize(serializer)
        found = serializer('initial_scale', _as_number(self.initial_scale))
        if self.initial_scale == 'auto' and found > 0:
            self.initial_scale = float(found)
        for path, layer_scale in self._layer_scales():
            layer_scale.serialize(serializer['layers'][path])
        masters.serialize(serializer['masters'], self.target)

    def _layer_scales(self):
        for path, link in self.target.namedlinks():
            if isinstance(link, links.ScaledLink):
                yield path, link.layer_scale


def _is_trained(param):
    return param.update_rule is not None and param.update_rule.enabled


def _call_counting_from_zero(hook, rule, param):
    # A rule counts the update before it calls its hooks, an optimizer after it: without this, the
    # decay of GradientNoise would be one update ahead.
    before = copy.copy(rule)
    before.t -= 1
    hook(before, param)


def _as_number(scale):
    return 0.0 if scale == 'auto' else scale


def _checked_scale(scale):
    if isinstance(scale, str) and scale == 'auto':
        return scale
    is_number = isinstance(scale, numbers.Real) and not isinstance(scale, bool)
    if not is_number or not 0 < scale < numpy.inf:
        raise ValueError(
            f"initial_scale must be a positive, finite number or 'auto', not {scale!r}"
        )
    return float(scale)
