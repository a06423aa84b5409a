"""The optimizer wrapper: attach it, and a model trains with adaptive loss scaling."""

import numbers
import warnings

from chainerlp import (
    backprop,
    gated_update,
    initial_scale,
    links,
    master_weights,
    multi_node,
    optimizer_hooks,
    policies,
    statistics,
)
from chainerlp.overflow import Recovery

import chainer
import numpy


class AdaptiveLossScaling:
    """Wraps a gradient method, so that every layer of its model scales the gradient it passes down.

    ``setup`` converts the model's links in place (:func:`chainerlp.convert`) and turns on fp32
    updates, which keep float32 master copies of float16 parameters. ``update`` then runs the scaled
    backward pass. Everything else (hyperparameters, hooks, ``new_epoch``, ...) is the wrapped
    optimizer's.

    An update whose gradients are not all finite is skipped and counted, and the scales that layers
    keep between iterations are chosen anew; if that overflows too, all gradients are kept smaller
    for a while (:class:`~chainerlp.overflow.Recovery`). Snapshots hold the scales, the counts and
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
    """

    def __init__(self, optimizer, policy=None, initial_scale=1.0, scale_weights=None):
        innermost = _checked_gradient_method(optimizer)
        policy = policies.Adaptive() if policy is None else policy
        policies.check(policy)
        initial_scale = _checked_scale(initial_scale)
        if scale_weights not in (None, True, False):
            raise TypeError(f'scale_weights must be True, False or None, not {scale_weights!r}')
        # The wrapper's own attributes; all others are the wrapped optimizer's (__setattr__).
        vars(self).update(
            actual_optimizer=optimizer,
            policy=policy,
            initial_scale=initial_scale,
            scale_weights=scale_weights,
            _innermost=innermost,
            _recovery=Recovery(),
            _pending=None,
            _loss_is_finite=True,
            _is_resumed=False,
        )
        if optimizer.target is not None:
            self._prepare(optimizer.target)
            self._take_over_hooks()

    @property
    def __class__(self):
        """type: The wrapped optimizer's class, for ``isinstance``; ``type`` gives the wrapper's."""
        return type(self._innermost)

    def __getattr__(self, name):
        if name == 'actual_optimizer':  # not there yet: while it is being copied or unpickled
            raise AttributeError(name)
        return getattr(self.actual_optimizer, name)

    def __setattr__(self, name, value):
        if name in vars(self) or hasattr(type(self), name):
            object.__setattr__(self, name, value)
        else:
            setattr(self.actual_optimizer, name, value)

    def __reduce_ex__(self, protocol):
        # Python's own takes the class from __class__, which is the wrapped optimizer's.
        return object.__new__, (type(self),), self.__getstate__()

    def __getstate__(self):
        self._settle()  # what is pending belongs to this object and its device
        return vars(self).copy()

    @property
    def recovery(self):
        """Recovery: What became of overflows; on a GPU, waits for the last update to be done."""
        self._settle()
        return self._recovery

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

    def _prepare(self, link):
        links.convert(link, self.policy, self.scale_weights)
        self.actual_optimizer.use_fp32_update()

    def _take_over_hooks(self):
        """Adds the hooks again that the optimizer had, as :meth:`add_hook` does."""
        hookable = self._innermost._hookable
        for timing in ('pre', 'post'):
            for name, hook in list(getattr(hookable, f'_{timing}_update_hooks').items()):
                hookable.remove_hook(name)
                self.add_hook(hook, name, timing)

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
        optimizer_hooks.check_awareness(hook)
        if not getattr(hook, 'call_for_each_param', False):
            self.actual_optimizer.add_hook(hook, name, timing)
            return
        self.actual_optimizer._check_set_up()
        optimizer_hooks.add_to_update_rules(self.target.params(), hook, name, timing)

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
        self.actual_optimizer._check_set_up()
        if lossfun is not None:
            loss = lossfun(*args, **kwds)
            if not isinstance(loss, chainer.Variable):
                kind = type(loss).__name__
                raise TypeError(f'the loss function must return a chainer.Variable, not {kind}')
            self.target.cleargrads()
            self.backward(loss)
            del loss
        else:
            self._warn_if_unscaled()
        if self._innermost is not self.actual_optimizer:
            if not multi_node.mean_gradients(self.actual_optimizer, self._is_resumed):
                return
        has_overflowed = self._settle()
        master_weights.synchronize(self.target.params())
        # Those without a gradient, too: Chainer fills it with zeros, and momentum goes on.
        updated = [p for p in self.target.params(include_uninit=False) if _is_trained(p)]
        trained = [param for param in updated if param.grad is not None]
        if trained and gated_update.is_possible(updated):
            with chainer.using_device(trained[0].device):
                is_finite = statistics.all_arrays_finite([param.grad for param in trained])
                self._pending = gated_update.run(
                    updated, self._update_unscaled, is_finite, self._loss_is_finite, has_overflowed
                )
        elif _found_inf(trained):
            self._note_update(found_inf=True, loss_is_finite=bool(self._loss_is_finite))
            self.actual_optimizer.t += 1
        else:
            self._note_update(found_inf=False)
            self._update_unscaled()

    def _update_unscaled(self):
        _unscale_float32(self.target.params())
        self._innermost.update()

    def _settle(self):
        """Takes note of an update that the device decided on; returns whether it was skipped."""
        pending, self._pending = self._pending, None
        if pending is None:
            return False
        found_inf, loss_is_finite = pending.wait()
        if found_inf and pending.is_stale:  # it says nothing of the scales chosen anew since
            self._recovery.skipped += 1
            return False
        self._note_update(found_inf, loss_is_finite)
        return found_inf

    def _note_update(self, found_inf, loss_is_finite=True):
        self._recovery.update(found_inf, loss_is_finite)
        if found_inf:
            self._forget_scales()

    def _forget_scales(self):
        for _, layer_scale in self._layer_scales():
            layer_scale.forget()

    def backward(self, loss, **kwargs):
        """Runs the scaled backward pass, :func:`chainerlp.backprop.backward`, from a loss.

        Args:
            loss (~chainer.Variable): The loss.
            **kwargs: ``retain_grad``, as there.
        """
        with chainer.using_device(loss.device):
            self._loss_is_finite = statistics.all_finite(loss.array)
            if self.initial_scale == 'auto' and bool(self._loss_is_finite):
                largest = getattr(self.policy, 'max_total_scale', numpy.inf)
                self.initial_scale = initial_scale.find(loss, largest) or 'auto'
            scale = 1.0 if self.initial_scale == 'auto' else self.initial_scale
            backprop.backward(loss, scale, backoff=self._recovery.backoff, **kwargs)

    def _warn_if_unscaled(self):
        for path, param in self.target.namedparams():
            if param.grad is not None and param.dtype == 'float16' and param._loss_scale is None:
                warnings.warn(
                    f'update() was called with gradients of loss.backward() (that of {path}, for'
                    ' one), in which no layer is scaled: call optimizer.backward(loss) instead, for'
                    ' each loss',
                    RuntimeWarning,
                    stacklevel=3,
                )
                return

    def serialize(self, serializer):
        """Saves or loads the state: the wrapped optimizer's, and what a wrapper adds to it.

        A snapshot of an unwrapped optimizer is loaded with a warning; scales are then chosen anew,
        and float32 copies made from the float16 parameters. A snapshot of a wrapped one loads into
        an unwrapped one, which takes no notice of what was added.
        """
        self.actual_optimizer.serialize(serializer)
        self._is_resumed |= isinstance(serializer, chainer.Deserializer)
        try:
            self._serialize_own(serializer['adaptive_loss_scaling'])
        except (KeyError, ValueError):  # of npz, of HDF5
            warnings.warn(
                'the snapshot was made without AdaptiveLossScaling: scales are chosen anew',
                RuntimeWarning,
                stacklevel=2,
            )
            self._forget_scales()
            master_weights.discard(self.target.params())

    def _serialize_own(self, serializer):
        self.recovery.serialize(serializer)
        is_auto = self.initial_scale == 'auto'
        found = serializer('initial_scale', 0.0 if is_auto else self.initial_scale)
        if is_auto and found > 0:
            self.initial_scale = float(found)
        for path, layer_scale in self._layer_scales():
            layer_scale.serialize(serializer['layers'][path.lstrip('/')])
        master_weights.serialize(serializer['masters'], self.target)

    def _layer_scales(self):
        for path, link in self.target.namedlinks():
            if isinstance(link, links.ScaledLink):
                yield path, link.layer_scale


def _found_inf(params):
    gradients_by_device = {}
    for param in params:
        gradients_by_device.setdefault(param.device, []).append(param.grad)
    for device, gradients in gradients_by_device.items():
        with chainer.using_device(device):
            if not statistics.all_arrays_finite(gradients):
                return True
    return False


def _unscale_float32(params):
    """Divides the total scales out of gradients that are not float16.

    Chainer divides a float16 parameter's gradient in float32, in its master copy. It would divide a
    float32 one in place and leave its scale standing, for hooks to multiply by.
    """
    seen = set()
    for param in params:
        gradient, scale = param.grad, param._loss_scale
        if gradient is None:  # Chainer fills it with zeros
            param._loss_scale = None
        elif gradient.dtype != numpy.float16 and scale is not None:
            # Hooks write to it, but it may be another parameter's gradient too (p + q), or a
            # read-only view (of a sum).
            has_own = gradient.flags.owndata and id(gradient) not in seen
            seen.add(id(gradient))
            if not (has_own and isinstance(scale, float) and scale == 1.0):
                param.grad = gradient.copy()
                param.grad /= scale
            param._loss_scale = None


def _is_trained(param):
    return param.update_rule is not None and param.update_rule.enabled


def _checked_gradient_method(optimizer):
    """Returns the gradient method itself: the optimizer, or what a multi-node optimizer wraps."""
    if hasattr(optimizer, 'communicated_target'):
        raise TypeError(
            'AdaptiveLossScaling wraps no optimizer with double buffering: its gradients belong'
            ' to the update before; leave out double_buffering=True'
        )
    innermost = getattr(optimizer, 'actual_optimizer', optimizer)
    is_wrapped = isinstance(optimizer, AdaptiveLossScaling)
    if is_wrapped or not isinstance(innermost, chainer.GradientMethod):
        kind = type(optimizer).__name__
        raise TypeError(f'AdaptiveLossScaling wraps a chainer.GradientMethod, not {kind}')
    if optimizer._loss_scale is not None:
        raise ValueError(
            'the optimizer has a loss scale of its own: leave out its loss_scaling() and give'
            ' AdaptiveLossScaling an initial_scale'
        )
    return innermost


def _checked_scale(scale):
    if isinstance(scale, str) and scale == 'auto':
        return scale
    is_number = isinstance(scale, numbers.Real) and not isinstance(scale, bool)
    if not is_number or not 0 < scale < numpy.inf:
        raise ValueError(
            f"initial_scale must be a positive, finite number or 'auto', not {scale!r}"
        )
    return float(scale)


multi_node.refuse_parallel_updaters(AdaptiveLossScaling)
