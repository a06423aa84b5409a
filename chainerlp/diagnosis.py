"""Diagnosing, from one batch and without a trainer, what each layer would lose in a format."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, Callable, Optional, Union

from chainerlp import backprop, functions, links
from chainerlp import formats as number_formats
from chainerlp import policies as available
from chainerlp.extensions.layer_probe import LayerProbe
from chainerlp.initial_scale import DelayedScale
from chainerlp.model_state import loss_of, preserved
from chainerlp.policies.policy import window_for
from chainerlp.rounding import to_float32
from chainerlp.statistics import count_underflow_and_overflow, largest_magnitude

import chainer
import numpy

_FORMATS = ('float16', 'bfloat16', 'float8_e5m2', 'float8_e4m3')
# Keeps gradients near the top of float16's range, so that next to nothing underflows on the way.
# The margin is wider than in training, since the pass is not run again after an overflow.
_LOSSLESS = available.Amax(margin=8)
_UNBOUNDED_POLICIES = [
    policy(max_scale=math.inf, max_total_scale=math.inf)
    for policy in (
        available.Adaptive,
        available.AbsRange,
        available.ElementWiseRange,
        available.LogNormal,
        available.PerSample,
        available.Amax,
        available.Measured,
    )
]


@dataclasses.dataclass(frozen=True)
class LayerDiagnosis:
    """What a format would do to the data gradient of one use of one layer.

    Attributes:
        layer (str): Path of the link in the model.
        call (int): Which use of the link in the pass, from 0.
        format (str): Name of the format.
        underflow (float): Fraction of all elements of gx that are not zero in float32 and are zero
            in the format, unscaled.
        overflow (float): Fraction that is finite in float32 and beyond the format.
        headroom (float): Powers of two from the largest ``|gx|`` up to the format's largest number:
            how far it may be scaled. Negative if it overflows, inf if gx is all zero.
        scales (dict of str to float): The scale that each policy would choose, by its name.
    """

    layer: str
    call: int
    format: str
    underflow: float
    overflow: float
    headroom: float
    scales: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The result of :func:`diagnose`; ``str()`` gives it as aligned tables, one a format.

    Attributes:
        rows (list of LayerDiagnosis): Format by format, the layers from input to output.
        policies (dict of str to policy): The policies that chose the scales, by name.
    """

    rows: list[LayerDiagnosis]
    policies: dict[str, available.Policy]

    def of(self, format: str) -> list[LayerDiagnosis]:
        """Returns the rows of a format, by its name."""
        return [row for row in self.rows if row.format == format]

    def __str__(self):
        if not self.rows:
            return 'no linear or convolution layer passes a gradient on to its input'
        names = dict.fromkeys(row.format for row in self.rows)
        tables = ['\n'.join(self._table(name)) for name in names]
        return '\n\n'.join([*tables, _LEGEND])

    def _table(self, name):
        format = number_formats.get(name)
        rows = self.of(name)
        smallest = f'2^{math.log2(format.smallest_subnormal):.0f}'
        yield (
            f'{name} ({smallest} to {format.largest:.6g}):'
            f' {sum(row.underflow > 0 for row in rows)} of {len(rows)} layers underflow'
        )
        cells = [('layer', 'underflow', 'headroom', *self.policies)]
        cells += [_cells(row) for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells)]
        for first, *others in cells:
            aligned = [cell.rjust(width) for cell, width in zip(others, widths[1:])]
            yield '  '.join([first.ljust(widths[0]), *aligned])


_LEGEND = """\
underflow  elements of the data gradient gx that the format rounds to zero, unscaled
headroom   powers of two between the largest |gx| and the format's largest number
others     the total scale that each policy would give gx
With a compute_dtype, gx stands for the gradient of a layer's output."""


def diagnose(
    model: chainer.Link,
    lossfun: Callable[..., chainer.Variable],
    *batch: Any,
    policies: Optional[Iterable[available.Policy]] = None,
    formats: Iterable[str] = _FORMATS,
    initial_scale: Union[float, str] = 1.0,
    compute_dtype: Optional[str] = None,
    show: bool = True,
) -> Diagnosis:
    """Counts what number formats would lose of each layer's gradient; says which scales would help.

    It runs one forward and one backward pass of ``lossfun(*batch)`` on the model, in any dtype,
    converted or not, and counts what rounding each layer's float32 product gx to each format would
    lose. In float16 layers gradients are scaled during the pass, and unscaled before they are
    counted, so that what underflows in one layer is not missing from the next. Layers whose input
    wants no gradient (usually the first) are left out.

    With a ``compute_dtype``, given or the model's own, it counts of each float32 layer what would
    be lost of the gradient of its output, gy, which is what such a layer rounds. None is left out.

    The scales are those that the policies would choose for gx if its layer's gy arrived unscaled,
    that is, total scales. The default policies are those of :mod:`chainerlp.policies` without the
    bounds ``max_scale`` and ``max_total_scale``.

    The model is restored afterwards, see :func:`chainerlp.model_state.preserved`. Function hooks
    run as in any other pass.

    Example::

        chainerlp.diagnose(model, model, x, t)  # model: an L.Classifier

    Args:
        model (~chainer.Link): The model.
        lossfun (callable): Loss function, as for an optimizer's ``update``.
        *batch: Its arguments.
        policies (list): Policies, each of which chooses a scale for every format.
        formats (list of str): Names of formats, see :func:`chainerlp.formats.get`.
        initial_scale (float): What the gradient of the loss is multiplied by, or ``'auto'``, as in
            :class:`~chainerlp.AdaptiveLossScaling`.
        compute_dtype (str): What the pass rounds the factors of float32 layers to, as for
            :func:`~chainerlp.convert`; by default what the model has been converted to.
        show (bool): Whether to print the tables.

    Returns:
        Diagnosis: A row for each layer and format.

    Raises:
        TypeError: If ``model`` is no link, or ``lossfun`` cannot be called or returns no variable.
        ValueError: If there is no format of a name.
    """
    if not callable(lossfun):
        raise TypeError(
            f'lossfun must be callable, such as model itself, not {type(lossfun).__name__}'
        )
    if not isinstance(model, chainer.Link):
        raise TypeError(f'model must be a chainer.Link, not {type(model).__name__}')
    policies = _named(_UNBOUNDED_POLICIES if policies is None else policies)
    formats = [number_formats.get(name) for name in formats]

    with preserved(model), chainer.using_config('enable_backprop', True):
        settings = _LOSSLESS, None, compute_dtype or _compute_dtype_of(model)
        links.convert(model, *settings)
        model.cleargrads()
        layers = links.FunctionalLayers(model, *settings)
        if initial_scale == 'auto':
            initial_scale = _delayed_scale(loss_of(lossfun, batch))
            model.cleargrads()

        def measure(function, in_data, gy, _):
            return _measure(function, in_data, gy, initial_scale, formats, policies)

        with layers.in_forward():
            loss = loss_of(lossfun, batch)
        with LayerProbe({'main': model}, measure) as probe:
            backprop.backward(loss, initial_scale)
    measured = probe.take()
    rows = [
        LayerDiagnosis(path, call, format.name, *by_format[index])
        for index, format in enumerate(formats)
        for path, call, by_format in measured
    ]
    diagnosis = Diagnosis(rows, policies)
    if show:
        print(diagnosis)
    return diagnosis


def _compute_dtype_of(model):
    scaled = (link for link in model.links() if isinstance(link, links.ScaledLink))
    return next((link.layer_scale.compute_dtype for link in scaled), None)


def _delayed_scale(loss):
    """Returns the scale that a second pass would begin with."""
    first = backprop.ScaledBackprop()
    first.run(loss)
    delayed = DelayedScale()
    delayed.observe(first.first_gradients, loss.dtype)
    return float(delayed.scale)


def _named(policies):
    names = [type(policy).__name__ for policy in policies]
    return {
        name if names.count(name) == 1 else f'{name} #{names[:index].count(name)}': policy
        for index, (name, policy) in enumerate(zip(names, policies))
    }


def _measure(function, in_data, gy, initial_scale, formats, policies):
    """Returns the fields of a :class:`LayerDiagnosis` from ``underflow`` on, for each format."""
    arriving = getattr(function, 'total_scale', None) or initial_scale
    arriving /= getattr(function, 'scale', 1.0)
    gradient = functions.gradient_to_round(function, in_data, to_float32(gy) / arriving)
    product = gradient.product()
    size = max(product.size, 1)
    with numpy.errstate(divide='ignore'):
        largest = float(numpy.log2(float(largest_magnitude(product))))
    by_format = []
    for format in formats:
        lost, overflowed = count_underflow_and_overflow(product, format)
        scales = {}
        for name, policy in policies.items():
            if hasattr(policy, 'format'):
                policy = dataclasses.replace(policy, format=format.name)
            context = {'terms': gradient.terms, 'product': product}
            context.update(window_for(policy, gradient.window))
            scales[name] = float(policy.scale(gradient.gy, gradient.W, **context))
        headroom = math.log2(format.largest) - largest
        by_format.append((float(lost) / size, float(overflowed) / size, headroom, scales))
    return by_format


def _cells(row):
    call = f' #{row.call}' if row.call else ''
    underflow = '0' if row.underflow == 0 else f'{max(row.underflow, 1e-4):.2%}'
    if 0 < row.underflow < 1e-4:
        underflow = '<' + underflow
    return (row.layer + call, underflow, f'{row.headroom:.1f}', *map(_power, row.scales.values()))


def _power(scale):
    exponent = math.log2(scale)
    return f'2^{exponent:.0f}' if exponent.is_integer() else f'{scale:.4g}'
