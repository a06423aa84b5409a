"""The paper's policy, from the second moments of gy and W."""

import dataclasses
import functools
import math
from statistics import NormalDist
from typing import Optional

from chainerlp import formats, moments, statistics
from chainerlp.policies.bounds import CUDA_CHOICE
from chainerlp.policies.policy import Bounded, Threshold, terms_of

import numpy


@dataclasses.dataclass(frozen=True)
class Adaptive(Bounded, Threshold):
    """The paper's policy: the smallest scale at which a Gaussian underflows at a rate of T at most.

    With gy and W independent and zero-centred, an element of gx has the variance
    σ² = E[gy²] E[W²] K / 2 (the half for the ReLU that zeroes about half of the terms), and::

        α_low  = u_min / (Φ⁻¹((1 + T) / 2) σ),      α_high = (u_max / K) / (max|gy| max|W|)
        α      = min(max(α_low, 1), α_high),        then the bounds, then down to a power of two.

    arXiv 1910.12385, section 3 (``approx_range`` of its code). The code of September 2019 has
    σ² = E[gy²] E[W²], the variance of a single product, and so scales √(K / 2) times as large;
    K / 2 stands in that of January 2020 and of the paper at IJCAI 2020.

    Args:
        threshold (float): T, the rate of underflow that is accepted.
        max_scale (float): Largest α; the authors ran with 16, 128 and 65504.
        max_total_scale (float): Largest product of all α down to a layer.
        power_of_two (bool): Round α down to a power of two, so that multiplying by it is exact.
        interval (int): α is chosen anew every so many backward passes (iterations, unless gradients
            accumulate over several) and kept in between.
        format (str): The format that gx is rounded to, see :mod:`chainerlp.formats`.
        variance (str): ``'sum'`` for the variance of an element of gx, ``'product'`` for that of
            one of its products.
    """

    variance: str = 'sum'

    def predicted_underflow(
        self,
        gy: numpy.ndarray,
        W: numpy.ndarray,
        scale: float = 1.0,
        *,
        terms: Optional[int] = None,
    ) -> float:
        """Returns the rate of underflow that the policy expects, which it compares with T.

        Args:
            gy (numpy.ndarray): Gradient of the layer's output as it is stored.
            W (numpy.ndarray): The layer's weight.
            scale (float): The factor α.
            terms (int): K; see :meth:`Policy.scale`.

        Returns:
            float: ``P(|N(0, σ)| < u_min / α)``.
        """
        deviation = math.sqrt(self._variance(gy, W, terms_of(W, terms)))
        smallest = formats.get(self.format).smallest_subnormal
        return math.erf(smallest / (scale * math.sqrt(2) * deviation)) if deviation > 0 else 0.0

    def _unbounded_scale(self, gy, W, terms, product, window, backoff):
        format = formats.get(self.format)
        variance = self._variance(gy, W, terms) / backoff**2
        lowest = numpy.float64(1)
        if variance > 0:
            lowest = max(format.smallest_subnormal / (self._quantile() * variance**0.5), lowest)
        largest = statistics.largest_magnitude(gy) / backoff * statistics.largest_magnitude(W)
        return numpy.minimum(lowest, format.largest / (terms * largest))

    def _kernel(self, gy, W, terms, product, window, backoff):
        format = formats.get(self.format)
        constants = (
            *(terms, self._terms_of_variance(terms), self._quantile()),
            *(format.smallest_subnormal, format.largest),
        )
        return functools.partial(
            moments.launch_with_moments,
            _CUDA_ADAPTIVE,
            'choose_adaptive',
            [gy, W],
            *map(float, constants),
        )

    def _variance(self, gy, W, terms):
        of_products = statistics.second_moment(gy) * statistics.second_moment(W)
        return of_products * self._terms_of_variance(terms)

    def _terms_of_variance(self, terms):
        return terms / 2 if self.variance == 'sum' else 1

    def _quantile(self):
        # (1 - T) / 2, whose quantile is the same but for the sign, is never rounded to 1.
        return abs(NormalDist().inv_cdf((1 - self.threshold) / 2))


_CUDA_ADAPTIVE = (
    moments.CUDA_MOMENTS
    + CUDA_CHOICE
    + r"""
extern "C" __global__ void choose_adaptive(
        double* partial, unsigned* done, Measured gy, Measured W, double terms,
        double terms_of_variance, double quantile, double smallest, double largest,
        Choice choice) {
    gy.measure(partial);
    W.measure(partial);
    if (!is_last_block(done)) return;
    double of_gy[2], of_W[2];
    gy.moments(partial, of_gy);
    W.moments(partial, of_W);
    if (threadIdx.x > 0) return;
    const double backoff = choice.backoff;
    const double variance = of_gy[0] / (backoff * backoff) * of_W[0] * terms_of_variance;
    double lowest = 1;
    if (variance > 0) lowest = max(smallest / (quantile * sqrt(variance)), 1.0);
    const double highest = largest / (terms * (of_gy[1] / backoff * of_W[1]));
    choice.store(lowest < highest ? lowest : highest);
}
"""
)
