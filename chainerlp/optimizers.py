"""The optimizer wrapper: attach it, and a model trains with adaptive loss scaling."""

import contextlib
from typing import Any, Callable, Optional, Union

from chainerlp import (
    backprop,
    links,
    master_weights,
    multi_node,
    overflow,
    policies,
    statistics,
    training_warnings,
)
from chainerlp.gated_update import can_be_gated, counters_of
from chainerlp.grouped_update import make_update
from chainerlp.initial_scale import initial_scale_of
from chainerlp.layer_scale import check_formats
from chainerlp.optimizer_wrapper import OptimizerWrapper
from chainerlp.overflow import Recovery
from chainerlp.policies.policy import margin_of
from chainerlp.training_warnings import user_warning
from chainerlp.true_gradients import are_finite, gradient_of

import chainer

# So many updates skipped one after another are no accident.
_MANY_SKIPS = 30


class AdaptiveLossScaling(OptimizerWrapper):
    """Wraps a gradient method, so that every layer of its model scales the gradient it passes down.

    ``setup`` converts the model's links in place (:func:`chainerlp.convert`) and turns on fp32
    updates, which keep float32 master weights. ``update`` then runs the scaled backward pass.
    Everything else (hyperparameters, hooks, ``new_epoch``, ...) is the wrapped optimizer's.

    An update whose gradients are not all finite is skipped and counted, and the scales that layers
    keep between iterations are chosen anew; if that overflows too, all gradients are kept smaller
    for a while (:class:`~chainerlp.overflow.Recovery`). Snapshots hold the scales, the counts and
    the master weights: a resumed training goes on as if it had not been interrupted.

    Args:
        optimizer (~chainer.GradientMethod): Any of Chainer's gradient methods, or what
            ``chainermn.create_multi_node_optimizer`` makes of one.
        policy: How a layer's scale is chosen, one of :mod:`chainerlp.policies`; by default the
            paper's :class:`~chainerlp.policies.Adaptive`, and with a ``compute_dtype``, where there
            is no product, :class:`~chainerlp.policies.Amax`.
        initial_scale (float or str): What the gradient of the loss is multiplied by. By default
            (``'auto'``) a pass begins with the scale that the pass before should have had
            (:class:`~chainerlp.initial_scale.DelayedScale`).
        scale_weights (bool): Whether weight gradients get scales of their own; ``None`` leaves it
            to the policy.
        compute_dtype (str): Trains a float32 model as it is, and rounds what enters the products
            of its layers to ``'float16'``, or another format (:func:`chainerlp.convert`).
        gradient_format (str): Rounds what layers pass down to another format than float16, to try
            what a training in it would be like (:func:`chainerlp.convert`).

    Attributes:
        actual_optimizer (~chainer.GradientMethod): The wrapped optimizer.
        policy: As above, like ``scale_weights``, ``compute_dtype`` and ``gradient_format``.
    """

    def __init__(
        self,
        optimizer: chainer.GradientMethod,
        policy: Optional[policies.Policy] = None,
        initial_scale: Union[float, str] = 'auto',
        scale_weights: Optional[bool] = None,
        compute_dtype: Optional[str] = None,
        gradient_format: Optional[str] = None,
    ) -> None:
        super().__init__(optimizer)
        check_formats(compute_dtype, gradient_format)
        if policy is None:
            policy = policies.Adaptive() if compute_dtype is None else policies.Amax()
        policies.check(policy)
        if scale_weights not in (None, True, False):
            raise TypeError(f'scale_weights must be True, False or None, not {scale_weights!r}')
        vars(self).update(
            policy=policy,
            scale_weights=scale_weights,
            compute_dtype=compute_dtype,
            gradient_format=gradient_format,
            _initial_scale=initial_scale_of(initial_scale, policy),
            _recovery=Recovery(),
            _verdicts=[],
            _pending=None,
            _happened=set(),
            _look_closer=False,
            _functional_layers=None,
            _is_resumed=False,
        )
        if optimizer.target is not None:
            self._prepare(optimizer.target)

    def __getstate__(self):
        self._settle()  # what is pending belongs to this object and its device
        return vars(self).copy()

    @property
    def initial_scale(self) -> Union[float, str]:
        """float: What the gradient of the loss is multiplied by; 'auto' as long as it is unknown.

        On a GPU, ``'auto'`` waits for the last backward pass to be done.
        """
        initial = self._initial_scale.after(self._verdicts)
        return float(initial.scale) if initial.is_known else 'auto'

    @initial_scale.setter
    def initial_scale(self, scale: Union[float, str]) -> None:
        self._initial_scale = initial_scale_of(scale, self.policy)

    @property
    def recovery(self) -> Recovery:
        """Recovery: What became of overflows; on a GPU, waits for the last update to be done."""
        self._settle()
        return self._recovery.after(self._verdicts)

    @property
    def saturated(self) -> int:
        """int: Number of elements that left the ``compute_dtype``; on a GPU, waits for it."""
        return sum(int(layer_scale.saturated) for _, layer_scale in self._all_scales())

    @property
    def skipped(self) -> int:
        """int: Number of updates that were skipped because a gradient was not finite."""
        return self.recovery.skipped

    def setup(self, link: chainer.Link) -> 'AdaptiveLossScaling':
        """Converts a model's links in place, sets it as the target, and returns the wrapper itself.

        Args:
            link (~chainer.Link): The model.
        """
        self.actual_optimizer.setup(link)
        self._prepare(link)
        return self

    def _prepare(self, link):
        formats = self.compute_dtype, self.gradient_format
        settings = self.policy, self.scale_weights, *formats
        links.convert(link, *settings)
        self._functional_layers = links.FunctionalLayers(link, *settings)
        self.actual_optimizer.use_fp32_update()
        master_weights.widen_states(link.params())

    def loss_scaling(self, interval: int = 1000, scale: Optional[float] = None) -> None:
        """Sets ``initial_scale``; Chainer's dynamic loss scaling, without one, is refused."""
        if scale is None:
            raise ValueError(
                'dynamic loss scaling and AdaptiveLossScaling exclude each other: leave out'
                ' loss_scaling(), or wrap no optimizer'
            )
        self.initial_scale = scale

    def set_loss_scale(self, loss_scale: float) -> None:
        """Sets ``initial_scale``, as does an updater that is given a ``loss_scale``."""
        self.loss_scaling(scale=loss_scale)

    def update(
        self, lossfun: Optional[Callable[..., chainer.Variable]] = None, *args: Any, **kwds: Any
    ) -> None:
        """Updates the parameters, as the wrapped optimizer does, in float32.

        While they are updated, float16 parameters hold their float32 master weights and true
        gradients: that is what hooks see, Chainer's and one's own.

        Args:
            lossfun (callable): Loss function. Without it, gradients are taken as they are: after
                :meth:`backward`, in a loop of one's own.
            *args: Arguments of the loss function.
            **kwds: Keyword arguments of the loss function.
        """
        self.actual_optimizer._check_set_up()
        if lossfun is not None:
            with self._functional_layers.in_forward():
                loss = lossfun(*args, **kwds)
            if not isinstance(loss, chainer.Variable):
                kind = type(loss).__name__
                raise TypeError(f'the loss function must return a chainer.Variable, not {kind}')
            self.target.cleargrads()
            self.backward(loss)
            del loss
        else:
            training_warnings.warn_of_plain_gradients(self.target)
        self._warn_of_saturated()
        # Those without a gradient, too: Chainer fills it with zeros, and momentum goes on.
        updated = [*filter(master_weights.is_trained, self.target.params(include_uninit=False))]
        trained = [*filter(gradient_of, updated)]
        passes = overflow.passes_of(trained)
        overflow.forget(updated)
        if self._innermost is not self.actual_optimizer:
            is_averaged, passes = multi_node.mean_gradients(
                self.actual_optimizer, passes, self._is_resumed
            )
            if not is_averaged:
                return
            trained = [*filter(gradient_of, updated)]
        was_skipped = self._settle()
        if trained and can_be_gated(updated):
            with chainer.using_device(trained[0].device):
                is_finite, counters = are_finite(trained), counters_of(updated)
                saturated = make_update(self._innermost, is_finite)
                self._pending = overflow.PendingUpdate(
                    is_finite, saturated, counters, passes, was_skipped
                )
        elif overflow.found_inf(trained):
            self._judge(True, passes)
            self.actual_optimizer.t += 1
        else:
            self._judge(False, passes, any(make_update(self._innermost)))

    def _settle(self):
        """Takes note of an update that the device decided on; returns whether it was skipped."""
        pending, self._pending = self._pending, None
        if pending is None:
            return False
        found_inf, is_saturated = pending.wait()
        if found_inf and pending.is_stale:  # it says nothing of the scales chosen anew since
            self._recovery.count(True)
            return False
        self._judge(found_inf, pending.passes, is_saturated)
        return found_inf

    def _judge(self, found_inf, passes, is_saturated=False):
        """Takes note of an update: for itself, and for who ran the backward passes."""
        self._recovery.count(found_inf)
        if found_inf:
            self._forget_scales()
        if is_saturated and self._is_first('saturation'):
            user_warning(
                f'{training_warnings.largest_parameter(self.target)} left float16: it is kept at'
                ' 65504; the learning rate may be too large'
            )
        n_skipped = self._recovery.skipped_in_a_row
        loss_is_finite = found_inf and all(bool(each.loss_is_finite) for each in passes)
        for run_by in {each.run_by for each in passes} or {self}:
            run_by._verdicts.append((found_inf, loss_is_finite))
            # On a GPU the next pass has begun by now.
            run_by._look_closer |= _MANY_SKIPS - 2 <= n_skipped < _MANY_SKIPS
            if found_inf and run_by is not self:
                run_by._forget_scales()
        if n_skipped == _MANY_SKIPS and self._is_first('row of skips'):
            culprit = training_warnings.what_is_not_finite(self.target, passes)
            user_warning(f'{_MANY_SKIPS} updates in a row were skipped: {culprit}')

    def _conclude(self):
        """Adapts the back-off to the updates since the last backward pass of this optimizer."""
        self._recovery = self._recovery.after(self._verdicts)
        self._initial_scale = self._initial_scale.after(self._verdicts)
        self._verdicts.clear()

    def _forget_scales(self):
        for _, layer_scale in self._all_scales():
            layer_scale.forget()

    def backward(self, loss: chainer.Variable, **kwargs: Any) -> None:
        """Runs the scaled backward pass, :func:`chainerlp.backward`, from a loss.

        Args:
            loss (~chainer.Variable): The loss.
            **kwargs: ``retain_grad``, as there.
        """
        self.actual_optimizer._check_set_up()
        with chainer.using_device(loss.device):
            self._conclude()
            this_pass = overflow.BackwardPass(self, statistics.all_finite(loss.array))
            look_closer, self._look_closer = self._look_closer, False  # type: ignore[has-type]
            scaled_pass = backprop.ScaledBackprop(
                backoff=self._recovery.backoff,
                margin=margin_of(self.policy),
                layer_scales=self._functional_layers.of_pass(),
                recomputing=self._functional_layers.in_forward,
                on_parameter=this_pass.remember,
                find_culprit=look_closer,
                **kwargs,
            )
            scaled_pass.run(loss, self._initial_scale.scale)
            if self._initial_scale.observe(scaled_pass.first_gradients, loss.dtype):
                self._forget_scales()  # they were chosen for a pass that began with 1
            if self._is_first('pass'):
                training_warnings.warn_after_first_pass(
                    self.target, scaled_pass.scaled, self.compute_dtype
                )
            this_pass.culprit = scaled_pass.culprit

    def trial(self, lossfun: Callable[..., chainer.Variable], *args: Any) -> None:
        """Gives the model the gradients that :meth:`update` would use, and stays as it is itself.

        Scales that are kept, their ages, what becomes of overflows and the initial scale are as if
        nothing had been. The model is not restored.

        Args:
            lossfun (callable): Loss function.
            *args: Its arguments.
        """
        scales = dict(self._all_scales())
        with contextlib.ExitStack() as unchanged:
            for layer_scale in scales.values():
                unchanged.enter_context(layer_scale.unchanged())
            with self._functional_layers.in_forward():
                loss = lossfun(*args)
            self.target.cleargrads()
            with chainer.using_device(loss.device):
                backprop.ScaledBackprop(
                    backoff=self.recovery.backoff,
                    margin=margin_of(self.policy),
                    layer_scales=self._functional_layers.of_pass(),
                    recomputing=self._functional_layers.in_forward,
                ).run(loss, self._initial_scale.after(self._verdicts).scale)
        for path, layer_scale in self._all_scales():
            if path not in scales:
                layer_scale.forget()

    def _warn_of_saturated(self):
        if self.compute_dtype is None:
            return
        for path, layer_scale in self._all_scales():
            # On a GPU that is not looked at, since one would wait for it.
            has_saturated = isinstance(layer_scale.saturated, int) and layer_scale.saturated > 0
            if has_saturated and self._is_first('factors'):
                user_warning(
                    f'x, W or the gradient of the output of {path} left {self.compute_dtype}: it is'
                    ' kept at the largest number',
                )

    def _is_first(self, event):
        """Returns whether an event, which warnings are given of once, has not happened before."""
        is_first = event not in self._happened
        self._happened.add(event)
        return is_first

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Saves or loads the state: the wrapped optimizer's, and what a wrapper adds to it.

        A snapshot of an unwrapped optimizer is loaded with a warning; scales are then chosen anew,
        and float32 copies made from the float16 parameters. A snapshot of a wrapped one loads into
        an unwrapped one, which takes no notice of what was added.
        """
        self.actual_optimizer.serialize(serializer)
        is_loading = isinstance(serializer, chainer.Deserializer)
        if is_loading:
            self._is_resumed = True
            master_weights.widen_states(self.target.params())
        own = serializer['adaptive_loss_scaling']
        if is_loading and not _has_state(own):
            user_warning(
                'the snapshot was made without AdaptiveLossScaling: scales are chosen anew'
            )
            self._forget_scales()
            master_weights.discard(self.target.params())
            return
        recovery, initial = self.recovery, self._initial_scale.after(self._verdicts)
        recovery.serialize(own)
        initial.serialize(own)
        if is_loading:
            self._recovery, self._initial_scale = recovery, initial
            self._verdicts.clear()
        for path, layer_scale in self._layer_scales():
            layer_scale.serialize(own['layers'][path.lstrip('/')])
        self._functional_layers.serialize(own)
        master_weights.serialize(own['masters'], self.target)

    def _layer_scales(self):
        for path, link in self.target.namedlinks():
            if isinstance(link, links.ScaledLink):
                yield path, link.layer_scale

    def _all_scales(self):
        yield from self._layer_scales()
        yield from self._functional_layers.namedscales()


def _has_state(serializer):
    """Returns whether a snapshot has what a wrapper adds."""
    try:
        return serializer('backoff', None) is not None
    except (KeyError, ValueError):  # of npz, of HDF5
        return False


multi_node.refuse_parallel_updaters(AdaptiveLossScaling)
