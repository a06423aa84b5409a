"""The optimizers: Chainer's, with weight decay."""

from typing import Annotated, Literal, Union

from experiments.config.section import NotNegative, Positive, Section

from pydantic import Field


class _Optimizer(Section):
    name: str
    weight_decay: NotNegative = 0.0
    """What is added to a parameter's gradient, as a fraction of the parameter; of all of them."""


class SGD(_Optimizer):
    """Stochastic gradient descent."""

    name: Literal['sgd']
    lr: Positive


class MomentumSGD(_Optimizer):
    """Stochastic gradient descent with momentum."""

    name: Literal['momentum_sgd']
    lr: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9


class Adam(_Optimizer):
    """Adam, with Chainer's defaults for the rest."""

    name: Literal['adam']
    alpha: Positive = 1e-3


Optimizer = Annotated[Union[SGD, MomentumSGD, Adam], Field(discriminator='name')]
