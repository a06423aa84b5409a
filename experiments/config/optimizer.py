"""The optimizers, which are Chainer's with weight decay, and the learning rate's schedule."""

from typing import Annotated, Literal, Optional, Union

from experiments.config.section import Count, InOneUnit, Interval, NotNegative, Positive, Section

import pydantic
from pydantic import Field


def _ascending(times):
    if list(times) != sorted(set(times)):
        raise ValueError('each later than the one before')
    return times


_Times = Annotated[
    tuple[Count, ...], Field(strict=False, min_length=1), pydantic.AfterValidator(_ascending)
]


class _Optimizer(Section):
    name: str
    weight_decay: NotNegative = 0.0
    """What is added to a parameter's gradient, as a fraction of the parameter."""
    undecayed: Annotated[tuple[Literal['b', 'beta', 'gamma'], ...], Field(strict=False)] = ()
    """Names of parameters that it is not added to: biases, and those of normalizations."""


class SGD(_Optimizer):
    """Stochastic gradient descent."""

    name: Literal['sgd']
    lr: Positive


class MomentumSGD(_Optimizer):
    """Stochastic gradient descent with momentum."""

    name: Literal['momentum_sgd']
    lr: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    corrected: bool = False
    """Accumulate gradients and not steps, so that a new rate is one for the past too (Goyal et al.
    2017, section 3)."""
    bias_rate: Positive = 1.0
    """Factor on the learning rate of biases."""


class Adam(_Optimizer):
    """Adam, with Chainer's defaults for the rest."""

    name: Literal['adam']
    alpha: Positive = 1e-3


Optimizer = Annotated[Union[SGD, MomentumSGD, Adam], Field(discriminator='name')]


class Step(InOneUnit):
    """The rate is multiplied by a factor at certain times, given in epochs or in iterations."""

    epochs: Optional[_Times] = None
    """How many epochs are over, each time."""
    iterations: Optional[_Times] = None
    """How many iterations are over, each time."""
    factor: Positive = 0.1


class Warmup(Interval):
    """The training begins with a smaller rate."""

    factor: Positive
    """The rate at the beginning, as a fraction of the full one."""
    shape: Literal['constant', 'linear']
    """constant: that rate for the whole of the warm-up; linear: it grows to the full one."""


class Schedule(Section):
    """The learning rate, as a factor of the optimizer's (Adam's alpha)."""

    step: Optional[Step] = None
    warmup: Optional[Warmup] = None
