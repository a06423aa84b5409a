"""What a policy is, and the bounds and checks of arguments that the policies share."""

import dataclasses
import math
import numbers

from chainerlp import formats
from chainerlp.gpu import on_gpu
from chainerlp.scaled_array import MARGIN

import numpy
from chainer.backends import cuda

# A total scale and its reciprocal have to be normal numbers of float32, in which they are applied.
SMALLEST_TOTAL_SCALE = formats.FLOAT32.smallest_normal
LARGEST_TOTAL_SCALE = 1 / SMALLEST_TOTAL_SCALE


class Policy:
    """How a layer's scale is chosen.

    A policy of one's own is a subclass with one method, ``scale``.

    Example::

        class Half(chainerlp.policies.Policy):
            def scale(self, gy, W, total_scale=1.0, **context):
                return 0.5

    Attributes:
        interval (int): A scale is chosen anew every so many backward passes and kept in between; 1
            by default.
        scales_weights (bool): Whether weight gradients, too, get a scale of their own (that of
            :class:`Amax`) unless the optimizer is told otherwise; ``False`` by default.
        needs_product (bool): Whether ``scale`` looks at the product gx. Where no policy does, a
            GPU forms, scales and rounds it at once; ``True`` by default.
    """

    interval = 1
    scales_weights = False
    needs_product = True

    def scale(self, gy, W, total_scale=1.0, *, terms=None, product=None, backoff=1.0):
        """Returns the factor α for a layer's data gradient.

        Args:
            gy (:ref:`ndarray`): Gradient of the layer's output as it is stored, float16 or float32.
            W (:ref:`ndarray`): The layer's weight, (out, in) or (out, in / groups, kh, kw).
            total_scale (float or 0-d array): The scale that gy carries.
            terms (int): How many products are summed into an element of gx (K of the paper); by
                default ``out``, or ``out * kh * kw``.
            product (:ref:`ndarray`): gx in float32, before α, if the policy ``needs_product``.
                Without it, policies that look at it form it themselves (then W is a plain layer's:
                stride 1, no padding).
            backoff (float): The factor, at most 1, by which gradients are kept smaller than the
                policy would have them, because they overflowed. gy / backoff is what it would be
                without: a policy that looks at gy looks at that, so as not to make up for it.

        Returns:
            float or 0-d float32 array: α; a float for NumPy arrays, for CuPy arrays an array on
            their device (or a float, if it is a constant).
        """
        raise NotImplementedError(f'{type(self).__name__} has no method scale')

    def within_bounds(self, scale, total_scale, backoff=1.0):
        """Returns a scale that was kept over an ``interval``, smaller where bounds ask for it now.

        What gy carries may have grown since. By default there are no bounds.

        Args:
            scale (float or 0-d array): What :meth:`scale` returned.
            total_scale (float or 0-d array): As there.
            backoff (float): As there.
        """
        return scale


def check(policy):
    """Returns a policy, having made sure that it is one, or has all that one has.

    Raises:
        TypeError: If it is not; names what is missing.
    """
    if isinstance(policy, type) or not callable(getattr(policy, 'scale', None)):
        raise TypeError(
            f'policy must be one of chainerlp.policies, such as Adaptive(), not {policy!r}'
        )
    for part in ('interval', 'scales_weights', 'needs_product', 'within_bounds'):
        if not hasattr(policy, part):
            raise TypeError(
                f'policy {type(policy).__name__} has no {part}: derive it from'
                ' chainerlp.policies.Policy'
            )
    return policy


def margin_of(policy):
    """Returns how many powers of two a policy leaves below the largest number."""
    return getattr(policy, 'margin', MARGIN)


def is_real(value):
    """Returns whether a value is a real number, and no bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_bound(value):
    return is_real(value) and value > 0


# For each field whether a value is allowed, and what is.
_CHECKS = {
    'threshold': (lambda v: is_real(v) and 0 < v < 1, 'a rate between 0 and 1'),
    'margin': (lambda v: is_real(v) and 0 <= v < math.inf, 'a number of powers of two from 0'),
    'max_scale': (_is_bound, 'a positive number (inf is no bound)'),
    'max_total_scale': (_is_bound, 'a positive number (inf is no bound)'),
    'power_of_two': (lambda v: isinstance(v, bool), 'True or False'),
    'interval': (
        lambda v: is_real(v) and isinstance(v, numbers.Integral) and v >= 1,
        'a number of iterations from 1',
    ),
    'format': (
        lambda v: isinstance(v, str) and v in formats.NAMES,
        f'one of {", ".join(formats.NAMES)}',
    ),
    'variance': (lambda v: isinstance(v, str) and v in ('sum', 'product'), "'sum' or 'product'"),
}


@dataclasses.dataclass(frozen=True)
class Threshold:
    """Mixed in where a rate of underflow is accepted; its field comes before the bounds."""

    threshold: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Margin:
    """Mixed in where powers of two are left between the largest gradient and u_max."""

    margin: float = MARGIN


@dataclasses.dataclass(frozen=True)
class Bounded(Policy):
    """The bounds and the rounding that policies share; a bound of inf is no bound."""

    max_scale: float = 16.0
    max_total_scale: float = 1024.0
    power_of_two: bool = True
    interval: int = 1
    format: str = 'float16'

    needs_product = False

    def __post_init__(self):
        for field in dataclasses.fields(self):
            is_allowed, allowed = _CHECKS[field.name]
            value = getattr(self, field.name)
            if not is_allowed(value):
                raise ValueError(
                    f'{type(self).__name__}: {field.name} must be {allowed}, not {value!r}'
                )

    def scale(self, gy, W, total_scale=1.0, *, terms=None, product=None, backoff=1.0):
        """Returns the factor α for a layer's data gradient; see :meth:`Policy.scale`."""
        alpha = 1.0
        if gy.size > 0 and (W is None or W.size > 0):
            with numpy.errstate(all='ignore'):
                alpha = self._unbounded_scale(gy, W, terms_of(W, terms), product, backoff)
        return self.within_bounds(alpha, total_scale, backoff)

    def within_bounds(self, scale, total_scale, backoff=1.0):
        """Returns a scale within the bounds; see :meth:`Policy.within_bounds`."""
        if backoff != 1:  # on a GPU, dividing would be a launch
            total_scale = total_scale / backoff
        return bounded(scale, total_scale, *self.bounds())

    def _unbounded_scale(self, gy, W, terms, product, backoff):
        """Returns α before it is bounded: a float64 scalar or 0-d array; it may be NaN or inf."""
        raise NotImplementedError

    def bounds(self):
        """Returns largest scale, largest total scale, and whether scales are powers of two."""
        return self.max_scale, min(self.max_total_scale, LARGEST_TOTAL_SCALE), self.power_of_two


def bounded(alpha, total_scale, max_scale, max_total_scale, power_of_two):
    """Returns α within bounds: 1 in place of one that is not a positive, finite number.

    Of numbers it is a float; where one of the first two is on a GPU a 0-d float32 array, in one
    launch.
    """
    if on_gpu(alpha) or on_gpu(total_scale):
        return _bounded_on_gpu(alpha, total_scale, max_scale, max_total_scale, power_of_two)
    alpha = alpha if 0 < alpha < math.inf else 1.0
    alpha = min(alpha, max_scale, max_total_scale / total_scale)
    alpha = max(alpha, SMALLEST_TOTAL_SCALE / total_scale)
    return float(formats.floor_power_of_two(alpha) if power_of_two else alpha)


CUDA_BOUND = (
    formats.CUDA_FLOOR_POWER_OF_TWO
    + r"""
__device__ inline double bound(
        double alpha, double total_scale, double max_scale, double max_total_scale,
        bool power_of_two) {
    if (!(alpha > 0 && alpha <= 1.7976931348623157e308)) alpha = 1;
    alpha = min(alpha, min(max_scale, max_total_scale / total_scale));
    alpha = max(alpha, 1.1754943508222875e-38 / total_scale);
    return power_of_two ? floor_power_of_two(alpha) : alpha;
}
"""
)


def _bounded_on_gpu(alpha, *arguments):
    dtype = alpha.dtype.name if on_gpu(alpha) else 'float64'
    return cuda.elementwise(
        f'{dtype} unbounded, float32 total_scale, float64 max_scale, float64 max_total_scale,'
        ' bool power_of_two',
        'float32 alpha',
        'alpha = bound(unbounded, total_scale, max_scale, max_total_scale, power_of_two)',
        'chainerlp_bound',
        preamble=CUDA_BOUND,
    )(alpha, *arguments)


def terms_of(W, terms):
    """Returns K: what is given, or that of a plain layer with the weight W."""
    if terms is None and W is not None:
        return W.shape[0] * math.prod(W.shape[2:])
    return terms
