"""The bounds of a scale, and what follows from it: α within them, and the total scale of gx."""

import math

from chainerlp import formats
from chainerlp.gpu import on_gpu

import numpy
from chainer.backends import cuda

# A total scale and its reciprocal have to be normal numbers of float32, in which they are applied.
SMALLEST_TOTAL_SCALE = formats.FLOAT32.smallest_normal
LARGEST_TOTAL_SCALE = 1 / SMALLEST_TOTAL_SCALE


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


def times(total_scale, scale):
    """Returns what gx carries: the same object where nothing is scaled, so that this is seen."""
    return total_scale if isinstance(scale, float) and scale == 1 else total_scale * scale


_CUDA_BOUND = (
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
        preamble=_CUDA_BOUND,
    )(alpha, *arguments)


def kept_on_gpu(held, total_scale, backoff, bounds):
    """Returns α and the total scale of gx where a total scale is kept, in one launch.

    Args:
        held (float or 0-d float32 array): The total scale that is kept; one of the two is an array.
        total_scale (float or 0-d float32 array): What gy carries now.
        backoff (float): As of :meth:`chainerlp.policies.Policy.scale`.
        bounds (tuple): As of :func:`choose_on_gpu`.
    """
    return cuda.elementwise(
        'float32 held, float32 carried, float64 backoff, float64 max_scale,'
        ' float64 max_total_scale, bool power_of_two',
        'float32 alpha, float32 total',
        """
        const float kept = held / carried;
        alpha = bound(kept, carried / backoff, max_scale, max_total_scale, power_of_two);
        total = carried * alpha;
        """,
        'chainerlp_keep_total_scale',
        preamble=_CUDA_BOUND,
    )(held, total_scale, backoff, *bounds)


CUDA_CHOICE = (
    _CUDA_BOUND
    + r"""
// What a choice of alpha is bounded by, and where it goes. What gy carries is on the device, or
// else, with a null pointer, a number of the host's.
struct Choice {
    const float* total_scale;
    double total_scale_by_value, backoff, max_scale, max_total_scale, power_of_two;
    float* alpha;
    float* total;

    // By one thread. A NaN or an inf stands for no answer, for which `bound` takes 1.
    __device__ void store(double unbounded) const {
        const float given = total_scale ? *total_scale : (float)total_scale_by_value;
        const double carried = total_scale ? given : total_scale_by_value;
        const float chosen = bound(
            unbounded, carried / backoff, max_scale, max_total_scale, power_of_two);
        *alpha = chosen;
        *total = given * chosen;
    }
};
"""
)
"""str: For raw kernels that end in the choice of a scale."""

_CHOICE = numpy.dtype(
    [('total_scale', 'u8'), ('total_scale_by_value', 'f8'), ('backoff', 'f8')]
    + [('max_scale', 'f8'), ('max_total_scale', 'f8'), ('power_of_two', 'f8')]
    + [('alpha', 'u8'), ('total', 'u8')]
)


def choose_on_gpu(launch, total_scale, backoff, bounds):
    """Launches a raw kernel that ends in the choice of a scale.

    Args:
        launch (callable): Launches it with one more argument, a ``Choice`` of :data:`CUDA_CHOICE`.
        total_scale (float or 0-d array): As of :meth:`chainerlp.policies.Policy.scale`.
        backoff (float): As there.
        bounds (tuple): Largest scale, largest total scale, and whether scales are powers of two.

    Returns:
        tuple: α and the total scale of gx, 0-d float32 arrays.
    """
    alpha, total = (cuda.cupy.empty((), numpy.float32) for _ in range(2))
    on_device, by_value = 0, total_scale
    if on_gpu(total_scale):
        total_scale = total_scale.astype(numpy.float32, copy=False)
        on_device, by_value = total_scale.data.ptr, 0
    choice = on_device, by_value, backoff, *bounds, alpha.data.ptr, total.data.ptr
    launch(numpy.array(choice, _CHOICE))
    return alpha, total
