"""The ways of scaling gradients, and their names."""

from typing import Annotated, Literal, Optional, Union

from experiments.config.section import Count, Name, NotNegative, Positive, Section

from pydantic import Field, model_validator

_Rate = Annotated[float, Field(gt=0, lt=1)]
_Bound = Annotated[float, Field(gt=0)]


class _Scaling(Section):
    method: str
    dtype: Literal['mixed16', 'float16'] = 'mixed16'
    label: Optional[Name] = None
    """Names it in folders and tables; by default its method and the options that are not the
    defaults."""


class _InProducts(_Scaling):
    dtype: Literal['mixed16', 'float16', 'float32'] = 'mixed16'
    """float32 goes with compute."""
    compute: Optional[Literal['float16', 'bfloat16', 'float8_e5m2', 'float8_e4m3']] = None
    """The format that a float32 model's factors are rounded to: those of the products of its
    layers, and nothing else; of the others than float16 it is simulated."""
    gradient_format: Optional[Literal['float16', 'bfloat16', 'float8_e5m2', 'float8_e4m3']] = None
    """The format that layers round the gradients to that they pass down, simulated; null: their
    dtype."""

    @model_validator(mode='after')
    def _goes_with_float32(self):
        if self.compute is not None and self.gradient_format is not None:
            raise ValueError('compute or gradient_format')
        if (self.dtype == 'float32') != (self.compute is not None) and not self.gradient_format:
            raise ValueError('compute with dtype: float32, and neither without the other')
        if self.gradient_format == 'bfloat16' and self.dtype != 'float32':
            raise ValueError('gradient_format: bfloat16 with dtype: float32, whose range it has')
        return self


class Fp32(_Scaling):
    """Plain Chainer in float32."""

    method: Literal['fp32']
    dtype: Literal['float32'] = 'float32'


class Unscaled(_InProducts):
    """float16 without loss scaling."""

    method: Literal['none']


class Fixed(_InProducts):
    """Chainer's static loss scaling: one constant for the whole network.

    With ``compute`` the gradients that layers round are multiplied by it.
    """

    method: Literal['fixed']
    scale: Positive


class Dynamic(_Scaling):
    """Chainer's dynamic loss scaling: doubled until it overflows, then halved at each overflow."""

    method: Literal['dynamic']
    interval: Count = 1000
    """Clean updates in which the scale doubles, once it has overflowed."""


class _Layerwise(_InProducts):
    power_of_two: bool = True
    """Round every scale down to a power of two."""
    interval: Count = 1
    """Iterations between two choices of a layer's scale."""
    scale_weights: Optional[bool] = None
    """Scales of their own for weight gradients; null leaves it to the method."""
    initial_scale: Union[Literal['auto'], Positive] = 1.0
    """What the gradient of the loss is multiplied by; auto: what the last pass should have had."""


class _Bounded(_Layerwise):
    max_scale: _Bound = 16.0
    """Largest scale of a layer; .inf is no bound."""
    max_total_scale: _Bound = 1024.0
    """Largest product of all scales down to a layer; .inf is no bound."""


class Adaptive(_Bounded):
    """The paper's layer-wise scales, from second moments and a Gaussian."""

    method: Literal['adaptive']
    threshold: _Rate = 1e-3
    """T, the rate of underflow that is accepted."""
    variance: Literal['sum', 'product'] = 'sum'
    """Of an element of the gradient (the authors' code of 2020), or of one product (of 2019)."""


class AbsRange(_Bounded):
    """Layer-wise scales from the smallest and the largest magnitudes, of the paper's code."""

    method: Literal['abs_range']


class ElementWiseRange(_Bounded):
    """Layer-wise scales by which the smallest of all products is saved, of the paper's code."""

    method: Literal['element_wise_range']


class LogNormal(_Bounded):
    """Layer-wise scales by a log-normal gradient, which the paper's code has for casts only."""

    method: Literal['log_normal']
    threshold: _Rate = 1e-3
    """T, the rate of underflow that is accepted."""


def _without_default(schema):
    # It is inf, which JSON has no number for; the description says it.
    del schema['default']


class _Unbounded(_Layerwise):
    max_scale: _Bound = Field(float('inf'), json_schema_extra=_without_default)
    """Largest scale of a layer; by default .inf, which is no bound."""
    max_total_scale: _Bound = Field(float('inf'), json_schema_extra=_without_default)
    """Largest product of all scales down to a layer; by default .inf, which is no bound."""


class PerSample(_Unbounded):
    """Layer-wise scales by the paper's criterion for each sample of a batch by itself."""

    method: Literal['per_sample']
    threshold: _Rate = 1e-3
    """T, the rate of underflow that is accepted."""


class Amax(_Unbounded):
    """Layer-wise scales, the largest that the largest element of the gradient allows."""

    method: Literal['amax']
    margin: NotNegative = 4.0
    """Powers of two between the largest element of a gradient and the largest number."""


class Measured(_Unbounded):
    """Layer-wise scales, the smallest at which the measured underflow is within the threshold."""

    method: Literal['measured']
    margin: NotNegative = 4.0
    """Powers of two between the largest element of a gradient and the largest number."""
    threshold: _Rate = 1e-3
    """T, the rate of underflow that is accepted."""


Scaling = Annotated[
    Union[
        Fp32,
        Unscaled,
        Fixed,
        Dynamic,
        Adaptive,
        PerSample,
        Amax,
        Measured,
        AbsRange,
        ElementWiseRange,
        LogNormal,
    ],
    Field(discriminator='method'),
]


def label(scaling):
    """Names a way of scaling: its label, or its method and every option that is not the default.

    >>> label(Fixed(method='fixed', scale=128))
    'fixed-scale=128'
    """
    if scaling.label is not None:
        return scaling.label
    parts = [scaling.method]
    for key, field in type(scaling).model_fields.items():
        value = getattr(scaling, key)
        if key != 'method' and value != field.default:
            parts.append(f'{key}={_short(value)}')
    return '-'.join(parts)


def _short(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and value < 1e16:  # 1e300 stays short
        return str(int(value))
    return str(value)
