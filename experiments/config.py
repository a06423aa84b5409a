"""The schema of a config file: what may stand in it, and what it means.

Nothing is converted silently: a string is no number, ``true`` is no 1, and an unknown key is an
error. Everything is frozen; a config is a value.
"""

from typing import Annotated, Literal, Optional, Union

import pydantic
from pydantic import Field

# A folder is named after it.
Name = Annotated[str, Field(pattern=r'^[A-Za-z0-9][A-Za-z0-9._-]*$')]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Bound = Annotated[float, Field(gt=0)]
Fp16 = Literal['mixed16', 'float16']


class Section(pydantic.BaseModel):
    """Base class of everything in a config."""

    model_config = pydantic.ConfigDict(
        extra='forbid', frozen=True, strict=True, use_attribute_docstrings=True
    )


class Digits(Section):
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, in 10 classes; part of the package."""

    name: Literal['digits']
    test_size: Annotated[int, Field(ge=10, le=1787)] = 360
    """How many are kept for the test set; the split is stratified and always the same."""


class MLP(Section):
    """A multilayer perceptron: linear layers with ReLU in between."""

    name: Literal['mlp']
    layers: Annotated[int, Field(ge=2)]
    """Linear layers, the last one included."""
    units: Count
    """Units of every layer but the last."""


class SGD(Section):
    """Stochastic gradient descent."""

    name: Literal['sgd']
    lr: Positive


class MomentumSGD(Section):
    """Stochastic gradient descent with momentum."""

    name: Literal['momentum_sgd']
    lr: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9


class Adam(Section):
    """Adam, with Chainer's defaults for the rest."""

    name: Literal['adam']
    alpha: Positive = 1e-3


Optimizer = Annotated[Union[SGD, MomentumSGD, Adam], Field(discriminator='name')]


class Train(Section):
    """How long, and in which steps."""

    batch_size: Count
    epochs: Count
    max_iterations: Optional[Count] = None
    """Stops after so many iterations even if the epochs are not over."""
    evaluate: Count = 1
    """Epochs between two evaluations on the test set, each an entry in the log; the last iteration
    is followed by one in any case."""


class _Scaling(Section):
    method: str
    dtype: Fp16 = 'mixed16'


class Fp32(_Scaling):
    """Plain Chainer in float32."""

    method: Literal['fp32']
    dtype: Literal['float32'] = 'float32'


class Unscaled(_Scaling):
    """float16 without loss scaling."""

    method: Literal['none']


class Fixed(_Scaling):
    """Chainer's static loss scaling: one constant for the whole network."""

    method: Literal['fixed']
    scale: Positive


class Dynamic(_Scaling):
    """Chainer's dynamic loss scaling: doubled until it overflows, then halved at each overflow."""

    method: Literal['dynamic']
    interval: Count = 1000
    """Clean updates in which the scale doubles, once it has overflowed."""


class _Layerwise(_Scaling):
    power_of_two: bool = True
    """Round every scale down to a power of two."""
    interval: Count = 1
    """Iterations between two choices of a layer's scale."""
    scale_weights: Optional[bool] = None
    """Scales of their own for weight gradients; null leaves it to the method."""
    initial_scale: Union[Literal['auto'], Positive] = 1.0
    """What the gradient of the loss is multiplied by; auto finds it from the first gradient."""


class Adaptive(_Layerwise):
    """The paper's layer-wise scales, from second moments and a Gaussian."""

    method: Literal['adaptive']
    threshold: Rate = 1e-3
    """T, the rate of underflow that is accepted."""
    max_scale: Bound = 16.0
    """Largest scale of a layer; .inf is no bound."""
    max_total_scale: Bound = 1024.0
    """Largest product of all scales down to a layer; .inf is no bound."""


def _without_default(schema):
    # It is inf, which JSON has no number for; the description says it.
    del schema['default']


class _FromProduct(_Layerwise):
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 4.0
    """Powers of two between the largest element of a gradient and the largest number."""
    max_scale: Bound = Field(float('inf'), json_schema_extra=_without_default)
    """Largest scale of a layer; by default .inf, which is no bound."""
    max_total_scale: Bound = Field(float('inf'), json_schema_extra=_without_default)
    """Largest product of all scales down to a layer; by default .inf, which is no bound."""


class Amax(_FromProduct):
    """Layer-wise scales, the largest that the largest element of the gradient allows."""

    method: Literal['amax']


class Measured(_FromProduct):
    """Layer-wise scales, the smallest at which the measured underflow is within the threshold."""

    method: Literal['measured']
    threshold: Rate = 1e-3
    """T, the rate of underflow that is accepted."""


Scaling = Annotated[
    Union[Fp32, Unscaled, Fixed, Dynamic, Adaptive, Amax, Measured], Field(discriminator='method')
]


def label(scaling):
    """Names a way of scaling: its method, and every option that is not the default.

    >>> label(Fixed(method='fixed', scale=128))
    'fixed-scale=128'
    """
    parts = [scaling.method]
    for key, field in type(scaling).model_fields.items():
        value = getattr(scaling, key)
        if key != 'method' and value != field.default:
            parts.append(f'{key}={_short(value)}')
    return '-'.join(parts)


def _short(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


class Report(Section):
    """What is measured during training."""

    interval: Count = 1
    """Iterations between two measurements of underflow."""


class Sweep(Section):
    """What ``sweep`` runs: every way of scaling with every seed."""

    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)]
    scaling: Annotated[tuple[Scaling, ...], Field(strict=False, min_length=1)]

    @pydantic.field_validator('seeds')
    @classmethod
    def _no_seed_twice(cls, seeds):
        return _all_different(seeds, seeds)

    @pydantic.field_validator('scaling')
    @classmethod
    def _no_scaling_twice(cls, scaling):
        return _all_different(scaling, [label(item) for item in scaling])


def _all_different(items, names):
    for index, name in enumerate(names):
        if name in names[:index]:
            first = names.index(name)
            raise ValueError(f'every item once (items {first} and {index} are both {name})')
    return items


class Config(Section):
    """One experiment: what is trained on what, and how."""

    name: Name
    """Names the folder of the results."""
    seed: Seed = 0
    """Seed of ``train``: initial weights and the order of the data."""
    dataset: Digits
    model: MLP
    optimizer: Optimizer
    train: Train
    scaling: Scaling = Adaptive(method='adaptive')
    """What ``train`` runs."""
    report: Report = Report()
    sweep: Optional[Sweep] = None
    """What ``sweep`` runs."""

    @property
    def run_name(self):
        """str: Names the run's folder, and the run wherever it is listed."""
        return f'{label(self.scaling)}-seed={self.seed}'

    def single(self, scaling=None, seed=None):
        """Returns the config of one run, without the sweep.

        Args:
            scaling: One of the sweep's ways of scaling; the config's own by default.
            seed (int): The config's own by default.
        """
        changes = {
            'sweep': None,
            'scaling': self.scaling if scaling is None else scaling,
            'seed': self.seed if seed is None else seed,
        }
        return self.model_copy(update=changes)

    def runs(self):
        """Returns the configs of the sweep's runs, a list.

        One seed is gone through with every way of scaling before the next begins, so that a sweep
        that is cut short has runs that can be compared.
        """
        return [
            self.single(scaling, seed)
            for seed in self.sweep.seeds
            for scaling in self.sweep.scaling
        ]
