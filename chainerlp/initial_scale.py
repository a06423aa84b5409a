"""The scale that a backward pass begins with, found from the first gradient.

The gradient of the loss can underflow before any layer is there to scale it: divided by the batch
size, cast to float16. No layer brings back what is lost there.
"""

from chainerlp import backprop, formats, statistics

import numpy

_HALF = formats.FLOAT16
# As Amax's margin: powers of two that are left for what comes before the next layer chooses.
_MARGIN = 4
_LARGEST = 2.0**24
# A gradient of 1 times this is still finite in float16.
_LARGEST_FOR_HALF = 2.0**15


def find(loss, largest=numpy.inf):
    """Finds the largest scale at which no gradient overflows on its way to the last layers.

    Args:
        loss (~chainer.Variable): The loss; it is run backward as far as the scaled layers that come
            first, once or a few times, and is left as it was.
        largest (float): What the scale must not exceed.

    Returns:
        float: The largest power of two at which the largest float16 gradient that arrives at a
        scaled layer stays under 65504 / 2^4; 1 if none arrives, or only zeros do; ``None`` if what
        arrives is not finite at any scale.
    """
    bound = _LARGEST_FOR_HALF if loss.dtype == numpy.float16 else _LARGEST
    scale = float(formats.floor_power_of_two(numpy.float64(min(bound, largest))))
    magnitude = _largest_arriving(loss, scale)
    while not numpy.isfinite(magnitude) and scale > _HALF.smallest_subnormal:
        scale /= 2.0**_MARGIN
        magnitude = _largest_arriving(loss, scale)
    if not numpy.isfinite(magnitude):
        return None
    if magnitude == 0:
        return 1.0
    fits = formats.floor_power_of_two(numpy.float64(_HALF.largest / 2.0**_MARGIN / magnitude))
    return min(scale, scale * float(fits))


def _largest_arriving(loss, scale):
    arrays = backprop.gradients_at_first_layers(loss, scale)
    halves = [array for array in arrays if array.dtype == numpy.float16]
    return max((float(statistics.largest_magnitude(array)) for array in halves), default=0.0)
