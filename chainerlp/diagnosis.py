"""What each layer of a model would lose in a number format: one batch, no trainer."""

import dataclasses
import math

from chainerlp import backprop, functions, kernels, links, rounding
from chainerlp import formats as number_formats
from chainerlp import policies as available
from chainerlp.extensions.layer_probe import LayerProbe
from chainerlp.initial_scale import find as find_initial_scale
from chainerlp.untouched import untouched

import chainer
import numpy

_FORMATS = ('float16', 'bfloat16', 'float8_e5m2', 'float8_e4m3')
# Gradients arrive at the layers as large as float16 allows, so that next to nothing has been lost
# above. More room than in training, since nobody would run the pass again after an overflow.
_LOSSLESS = available.Amax(margin=8)


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
        headroom (float): Powers of two from the largest |gx| up to the format's largest number:
            how far it may be scaled. Negative if it overflows, inf if gx is all zero.
        scales (dict of str to float): The scale that each policy would choose, by its name.
    """

    layer: str
    call: int
    format: str
    underflow: float
    overflow: float
    headroom: float
    scales: dict


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found; ``str()`` gives it as aligned tables, one a format.

    Attributes:
        rows (list of LayerDiagnosis): Format by format, the layers from input to output.
        policies (dict of str to policy): What the scales are by.
    """

    rows: list
    policies: dict

    def of(self, format):
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
others     the total scale that each policy would give gx"""


def diagnose(model, lossfun, *batch, policies=None, formats=_FORMATS, initial_scale=1.0, show=True):
    """Tells what number formats would do to each layer's gradient, and which scales would help.

    It runs one forward and one backward pass of ``lossfun(*batch)`` on the model as it is, in any
    dtype, converted or not, and counts what rounding each layer's float32 product gx to each format
    would lose. In float16 layers, gradients are scaled on their way, and unscaled before they are
    counted, so that what underflows in one layer is not missing from the next. Layers whose input
    wants no gradient (usually the first) have nothing to tell.

    The scales are those that the policies would choose for gx if its layer's gy arrived unscaled,
    and so the total scales at which they aim. The default policies are those of
    :mod:`chainerlp.policies` without the bounds ``max_scale`` and ``max_total_scale``.

    The model is left as it was: parameters, gradients, classes, the running statistics of batch
    normalization, random states, as :func:`chainerlp.untouched.untouched` describes. Hooks that are
    there run as in any other pass.

    Example::

        chainerlp.diagnose(model, model, x, t)  # model: an L.Classifier

    Args:
        model (~chainer.Link): The model.
        lossfun (callable): Loss function, as for an optimizer's ``update``.
        *batch: Its arguments.
        policies (list): Policies to ask, each for every format (but ``Fixed``, which has none).
        formats (list of str): Names of formats, see :func:`chainerlp.formats.get`.
        initial_scale (float): What the gradient of the loss is multiplied by, or ``'auto'``, as in
            :class:`~chainerlp.AdaptiveLossScaling`.
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
    asked = _named(_unbounded_policies() if policies is None else policies)
    formats = [number_formats.get(name) for name in formats]

    with untouched(model), chainer.using_config('enable_backprop', True):
        links.convert(model, _LOSSLESS)
        model.cleargrads()
        loss = lossfun(*batch)
        if not isinstance(loss, chainer.Variable):
            raise TypeError(f'lossfun must return a chainer.Variable, not {type(loss).__name__}')
        seen = _run(model, loss, initial_scale, formats, asked)
    rows = [
        LayerDiagnosis(path, call, format.name, *found[index])
        for index, format in enumerate(formats)
        for path, call, found in seen
    ]
    diagnosis = Diagnosis(rows, asked)
    if show:
        print(diagnosis)
    return diagnosis


def _run(model, loss, initial_scale, formats, asked):
    scale = find_initial_scale(loss) if initial_scale == 'auto' else initial_scale

    def look(function, in_data, gy, _):
        return _look(function, in_data, gy, scale, formats, asked)

    with LayerProbe({'main': model}, look) as probe:
        backprop.backward(loss, scale)
    return probe.take()


def _unbounded_policies():
    bounds = dict(max_scale=math.inf, max_total_scale=math.inf)
    return [
        available.Adaptive(**bounds),
        available.AbsRange(**bounds),
        available.ElementWiseRange(**bounds),
        available.LogNormal(**bounds),
        available.Amax(),
        available.Measured(),
    ]


def _named(asked):
    names = [type(policy).__name__ for policy in asked]
    return {
        name if names.count(name) == 1 else f'{name} #{names[:index].count(name)}': policy
        for index, (name, policy) in enumerate(zip(names, asked))
    }


def _look(function, in_data, gy, initial_scale, formats, asked):
    """Returns what a :class:`LayerDiagnosis` has from ``underflow`` on, for each format."""
    arriving = getattr(function, 'total_scale', None) or initial_scale
    arriving /= getattr(function, 'scale', 1.0)
    product, gy, W, terms = _factors(function, in_data, rounding.to_float32(gy) / arriving)
    size = max(product.size, 1)
    with numpy.errstate(divide='ignore'):
        largest = numpy.log2(float(kernels.largest_magnitude(product)))
    found = []
    for format in formats:
        lost, overflowed = kernels.count_losses(product, format)
        scales = {}
        for name, policy in asked.items():
            if hasattr(policy, 'format'):
                policy = dataclasses.replace(policy, format=format.name)
            scales[name] = float(policy.scale(gy, W, terms=terms, product=product))
        headroom = math.log2(format.largest) - float(largest)
        found.append((float(lost) / size, float(overflowed) / size, headroom, scales))
    return found


def _factors(function, in_data, gy):
    """Returns gx before it is rounded, and what policies are shown: gy, W, and K."""
    if isinstance(function, functions.ScaledFunction):
        gradient = function.half_data_gradient(0, in_data[: function.n_retained], gy)
        return gradient.product, gradient.gy, gradient.W, gradient.terms
    product = functions.data_gradient(function, in_data, gy)
    return product, gy, rounding.to_float32(in_data[1]), None


def _cells(row):
    call = f' #{row.call}' if row.call else ''
    underflow = '0' if row.underflow == 0 else f'{max(row.underflow, 1e-4):.2%}'
    if 0 < row.underflow < 1e-4:
        underflow = '<' + underflow
    scales = [_power(row.scales[name]) for name in row.scales]
    return (row.layer + call, underflow, f'{row.headroom:.1f}', *scales)


def _power(scale):
    exponent = math.log2(scale)
    return f'2^{exponent:.0f}' if exponent.is_integer() else f'{scale:.4g}'
