"""The policies that the paper's is compared with.

Those of the paper's code: a constant, ranges of values, log-normal casts.
"""

import dataclasses
import math
from statistics import NormalDist
from typing import Optional

from chainerlp import formats, statistics
from chainerlp.policies.bounds import LARGEST_TOTAL_SCALE, bounded
from chainerlp.policies.policy import Bounded, Policy, Threshold, is_real
from chainerlp.types import Array, Scale

import numpy
from chainer import backend


@dataclasses.dataclass(frozen=True)
class Fixed(Policy):
    """One constant for every layer it is given to, whatever the gradient.

    ``Fixed(1)`` leaves gradients as they are; together with ``initial_scale`` of
    :class:`~chainerlp.AdaptiveLossScaling` it is static loss scaling.

    Args:
        scale (float): α, a positive, finite number.
    """

    constant: float

    needs_product = False

    def __init__(self, scale: float) -> None:
        if not is_real(scale) or not 0 < scale < math.inf:
            raise ValueError(f'Fixed: scale must be a positive, finite number, not {scale!r}')
        object.__setattr__(self, 'constant', float(scale))

    def __repr__(self) -> str:
        return f'Fixed({self.constant!r})'

    def scale(
        self,
        gy: Array,
        W: Optional[Array],
        total_scale: Scale = 1.0,
        *,
        terms: Optional[int] = None,
        product: Optional[Array] = None,
        backoff: float = 1.0,
    ) -> Scale:
        """Returns the constant, also for CuPy arrays; see :meth:`Policy.scale`.

        Less or more if the total scale would leave float32 otherwise.
        """
        if self.constant == 1:
            return 1.0
        return bounded(self.constant, total_scale, math.inf, LARGEST_TOTAL_SCALE, False)


@dataclasses.dataclass(frozen=True)
class AbsRange(Bounded):
    """Looks at the extremes of gy and W only (``abs_range`` of the paper's code).

    With o_min (at least 1e-15) and o_max the smallest and largest of the four products of the
    smallest and largest nonzero ``|gy|`` and ``|W|``:
    α = min(max((u_min / K) / o_min, 1), (u_max / K) / o_max), then as :class:`Adaptive`.
    """

    def _unbounded_scale(self, gy, W, terms, product, window, backoff):
        xp = backend.get_array_module(gy)
        format = formats.get(self.format)
        gy_smallest, gy_largest = statistics.nonzero_range(gy)
        W_smallest, W_largest = statistics.nonzero_range(W)
        smallest = xp.maximum(gy_smallest / backoff * W_smallest, 1e-15)
        lowest = xp.maximum(format.smallest_subnormal / terms / smallest, 1.0)
        return xp.minimum(lowest, format.largest / terms / (gy_largest / backoff * W_largest))


@dataclasses.dataclass(frozen=True)
class ElementWiseRange(Bounded):
    """Saves the smallest of all products gy_ik W_kj, unless the largest forbids it.

    ``α = min(max over p of max(u_min / |p|, 1), min over p of u_max / |p|, over K)``, over the
    nonzero products p, then as :class:`Adaptive`. The paper's code forms every product, far too
    slow to train with. For each k the extremes of the products are the products of the extremes,
    which gives the same α from the extremes of each output channel.
    """

    def _unbounded_scale(self, gy, W, terms, product, window, backoff):
        xp = backend.get_array_module(gy)
        format = formats.get(self.format)
        smallest, largest = numpy.inf, 0.0
        for channel in range(W.shape[0]):
            gy_smallest, gy_largest = statistics.nonzero_range(gy[:, channel])
            W_smallest, W_largest = statistics.nonzero_range(W[channel])
            smallest = xp.minimum(smallest, gy_smallest / backoff * W_smallest)
            largest = xp.maximum(largest, gy_largest / backoff * W_largest)
        lowest = xp.maximum(format.smallest_subnormal / smallest, 1.0)
        return xp.minimum(lowest, format.largest / largest / terms)


@dataclasses.dataclass(frozen=True)
class LogNormal(Bounded, Threshold):
    """For a cast from float32: the scale at which a log-normal g underflows at a rate of T.

    α = exp(ln u_min − μ − σ Φ⁻¹(T)) with μ and σ the mean and the standard deviation of ln|g| over
    the nonzero g, at most u_max / max|g|; then as :class:`Adaptive`. g is what is about to be
    rounded: the product where a layer hands it in, otherwise gy; W is not looked at and may be
    ``None``.
    """

    needs_product = True

    def _unbounded_scale(self, gy, W, terms, product, window, backoff):
        xp = backend.get_array_module(gy)
        format = formats.get(self.format)
        gradient = gy if product is None else product
        mean, deviation = statistics.log_moments(gradient)
        quantile = NormalDist().inv_cdf(self.threshold)
        exponent = math.log(format.smallest_subnormal) - mean - deviation * quantile
        largest = statistics.largest_magnitude(gradient) / backoff
        return xp.minimum(backoff * xp.exp(exponent), format.largest / largest)
