"""From statistics to a scale: the paper's formula, the bounds, and the rounding."""

import collections

from chainerlp.kernels import cuda
from chainerlp.kernels.statistics import largest_magnitude, on_device, second_moment

import numpy
from chainer import backend

AdaptiveConstants = collections.namedtuple(
    'AdaptiveConstants', ['terms', 'quantile', 'smallest', 'largest', 'backoff']
)
AdaptiveConstants.__doc__ += """

Attributes:
    terms (int): K, how many products are summed into an element of gx.
    quantile (float): Φ⁻¹((1 + T) / 2).
    smallest (float): u_min of the format.
    largest (float): u_max of the format.
    backoff (float): By how much gradients are kept smaller; gy is taken as gy / backoff.
"""

Bounds = collections.namedtuple('Bounds', ['scale', 'total_scale', 'power_of_two'])
Bounds.__doc__ += """

Attributes:
    scale (float): What a layer's scale must not exceed.
    total_scale (float): What the product of a layer's scale and of what gy carries must not exceed.
    power_of_two (bool): Whether a scale is rounded down to a power of two.
"""


def adaptive(gy, W, constants):
    """Returns the scale by the paper's formula, before it is bounded.

    Args:
        gy (numpy.ndarray): The gradient of the output.
        W (numpy.ndarray): The weight.
        constants (AdaptiveConstants): See there.

    Returns:
        numpy.float64: α; it may be NaN or inf.
    """
    backoff = constants.backoff
    variance = second_moment(gy) / backoff**2 * second_moment(W) * (constants.terms / 2)
    lowest = numpy.float64(1)
    if variance > 0:
        lowest = numpy.maximum(constants.smallest / (constants.quantile * variance**0.5), 1)
    largest = largest_magnitude(gy) / backoff * largest_magnitude(W)
    return numpy.minimum(lowest, constants.largest / (constants.terms * largest))


def bounded(alpha, total_scale, bounds):
    """Returns a scale within the bounds: 1 in place of one that is not a positive, finite number.

    Args:
        alpha (float or 0-d array): The scale.
        total_scale (float or 0-d array): What gy carries.
        bounds (Bounds): See there.
    """
    xp = backend.get_array_module(alpha)
    alpha = xp.where(xp.isfinite(alpha) & (alpha > 0), alpha, 1.0)
    alpha = xp.minimum(alpha, bounds.scale)
    alpha = xp.minimum(alpha, bounds.total_scale / total_scale)
    return floor_power_of_two(alpha) if bounds.power_of_two else alpha


def floor_power_of_two(value):
    """Returns the largest power of two that is at most a positive, finite value."""
    xp = backend.get_array_module(value)
    _, exponent = xp.frexp(value)
    return xp.ldexp(xp.float64(1), exponent - 1)


FLOOR_POWER_OF_TWO = r"""
__device__ inline double floor_power_of_two(double value) {
    int exponent;
    frexp(value, &exponent);
    return ldexp(1.0, exponent - 1);
}
"""

_CHOICE = (
    FLOOR_POWER_OF_TWO
    + r"""
struct Constants { double terms, quantile, smallest, largest, backoff; };
struct Bounds { double scale, total_scale, power_of_two; };

// gy and W: second moment, largest magnitude. A NaN among them gives NaN.
__device__ double adaptive(const double* gy, const double* W, Constants c) {
    const double variance = gy[0] / (c.backoff * c.backoff) * W[0] * (c.terms / 2);
    double lowest = 1;
    if (variance > 0) {
        lowest = c.smallest / (c.quantile * sqrt(variance));
        lowest = lowest < 1 ? 1 : lowest;
    }
    const double highest = c.largest / (c.terms * (gy[1] / c.backoff * W[1]));
    return lowest < highest ? lowest : highest;
}

__device__ double bounded(double alpha, double total_scale, Bounds bounds) {
    if (!(alpha > 0 && alpha <= 1.7976931348623157e308)) alpha = 1;
    alpha = bounds.scale < alpha ? bounds.scale : alpha;
    const double limit = bounds.total_scale / total_scale;
    alpha = limit < alpha ? limit : alpha;
    return bounds.power_of_two != 0 ? floor_power_of_two(alpha) : alpha;
}

// What gy carries is on the device, or else, with a null pointer, a number of the host's.
extern "C" __global__ void choose_adaptive(
        const double* gy, const double* W, Constants constants,
        const float* total_scale, double total_scale_by_value, Bounds bounds, float* alpha) {
    if (first_index() == 0) {
        const double total = total_scale ? *total_scale : total_scale_by_value;
        *alpha = bounded(adaptive(gy, W, constants), total / constants.backoff, bounds);
    }
}

extern "C" __global__ void choose_bounded(
        const float* chosen, const float* total_scale, double total_scale_by_value,
        Bounds bounds, float* alpha) {
    if (first_index() == 0)
        *alpha = bounded(*chosen, total_scale ? *total_scale : total_scale_by_value, bounds);
}
"""
)
_CONSTANTS = numpy.dtype([(name, numpy.float64) for name in AdaptiveConstants._fields])
_BOUNDS = numpy.dtype([(name, numpy.float64) for name in Bounds._fields])


def adaptive_on_device(gy, W, constants, total_scale, bounds):
    """:func:`adaptive`, then :func:`bounded`: a pass over each array, and a kernel that chooses.

    ``total_scale`` is divided by ``backoff``, as the policies do.

    Returns:
        :ref:`ndarray`: α, 0-d and float32.
    """
    gy, W = on_device(gy), on_device(W)
    alpha = _empty_scale(gy.values)
    cuda.launch(
        _CHOICE,
        'choose_adaptive',
        1,
        gy.values,
        W.values,
        numpy.array(tuple(constants), _CONSTANTS),
        *cuda.scale_arguments(total_scale),
        numpy.array(tuple(bounds), _BOUNDS),
        alpha,
    )
    return alpha


def bounded_on_device(chosen, total_scale, bounds):
    """:func:`bounded`, by one kernel; ``chosen`` is a 0-d float32 array, as is what it returns."""
    alpha = _empty_scale(chosen)
    bounds = numpy.array(tuple(bounds), _BOUNDS)
    cuda.launch(
        _CHOICE, 'choose_bounded', 1, chosen, *cuda.scale_arguments(total_scale), bounds, alpha
    )
    return alpha


def _empty_scale(array):
    return backend.get_array_module(array).empty((), numpy.float32)
