"""Wrapping an optimizer: what it may be, and how the wrapper stands for it."""

from typing import Any

import chainer


class OptimizerWrapper:
    """Hands on to a gradient method all attributes but its own, and passes for one of its class.

    Its own attributes are those of its class, and those that are put into ``vars`` of it.

    Args:
        optimizer (~chainer.GradientMethod): Any of Chainer's gradient methods, or what
            ``chainermn.create_multi_node_optimizer`` makes of one.

    Attributes:
        actual_optimizer (~chainer.GradientMethod): The wrapped optimizer.
    """

    def __init__(self, optimizer: chainer.GradientMethod) -> None:
        vars(self).update(actual_optimizer=optimizer, _innermost=_gradient_method(optimizer))

    @property  # type: ignore[misc]
    def __class__(self):
        """type: The wrapped optimizer's class, for ``isinstance``; ``type`` gives the wrapper's."""
        return type(self._innermost)

    def __getattr__(self, name: str) -> Any:
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


def _gradient_method(optimizer):
    """Returns the gradient method itself: the optimizer, or what a multi-node optimizer wraps."""
    if hasattr(optimizer, 'communicated_target'):
        raise TypeError(
            'AdaptiveLossScaling wraps no optimizer with double buffering: its gradients belong'
            ' to the update before; leave out double_buffering=True'
        )
    innermost = getattr(optimizer, 'actual_optimizer', optimizer)
    is_wrapped = isinstance(optimizer, OptimizerWrapper)
    if is_wrapped or not isinstance(innermost, chainer.GradientMethod):
        kind = type(optimizer).__name__
        raise TypeError(f'AdaptiveLossScaling wraps a chainer.GradientMethod, not {kind}')
    if optimizer._loss_scale is not None:
        raise ValueError(
            'the optimizer has a loss scale of its own: leave out its loss_scaling() and give'
            ' AdaptiveLossScaling an initial_scale'
        )
    return innermost
