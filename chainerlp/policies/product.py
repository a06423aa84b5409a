"""Policies that look at the product gx itself before they choose its scale."""

import dataclasses
import math

from chainerlp import formats, geometry, magnitude_counts, statistics
from chainerlp.float16 import to_float32
from chainerlp.policies.bounds import Bounded, Margin, Threshold

from chainer import backend


@dataclasses.dataclass(frozen=True)
class Amax(Bounded, Margin):
    """The largest scale with max|gx| α <= u_max / 2^margin.

    NVIDIA's Transformer Engine calls this current scaling.

    Args:
        margin (float): Powers of two between the largest gradient and the largest number, for what
            comes before the next layer chooses: batch normalization, sums.
        max_scale (float): No bound by default, nor for ``max_total_scale``.
    """

    max_scale: float = math.inf
    max_total_scale: float = math.inf

    scales_weights = True
    needs_product = True

    def scale_before_bounds(self, gy, W, terms, product, backoff):
        """Returns α before it is bounded; see the class."""
        product = _product(gy, W) if product is None else product
        return self._largest(product, backoff)

    def _largest(self, product, backoff):
        limit = formats.get(self.format).largest * 2.0**-self.margin
        return limit / (statistics.largest_magnitude(product) / backoff)


@dataclasses.dataclass(frozen=True)
class Measured(Amax, Threshold):
    """The smallest scale at which the measured underflow is T at most.

    That is the smallest power of two, at least 1, at which the share of the nonzero elements of gx
    that round to zero (magnitudes up to u_min / 2) is at most T; but never more than :class:`Amax`
    allows.

    Args:
        threshold (float): T, the rate of underflow that is accepted.
        margin (float): As :class:`Amax`'s.
    """

    def scale_before_bounds(self, gy, W, terms, product, backoff):
        """Returns α before it is bounded; see the class."""
        xp = backend.get_array_module(gy)
        product = _product(gy, W) if product is None else product
        counts = magnitude_counts.exponent_counts(product)
        lost = formats.get(self.format).underflow_threshold
        lowest = xp.maximum(
            backoff * magnitude_counts.smallest_scale_that_keeps(counts, lost, self.threshold), 1.0
        )
        return xp.minimum(lowest, self._largest(product, backoff))


def _product(gy, W):
    return geometry.plain_data_gradient(to_float32(gy), to_float32(W))
