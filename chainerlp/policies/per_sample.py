"""The paper's criterion, given the sample: for batches whose samples differ in size."""

import dataclasses
import math
from typing import Optional

from chainerlp import formats, statistics
from chainerlp.policies import per_sample_kernels
from chainerlp.policies.policy import Bounded, Threshold, terms_of
from chainerlp.window import Window

import numpy


@dataclasses.dataclass(frozen=True)
class PerSample(Bounded, Threshold):
    """The smallest power of two at which Gaussian samples underflow at a mean rate of T at most.

    Late in training most samples are learnt, and the gradients of a batch differ in size by orders
    of magnitude: gx is no Gaussian, but a mixture of one for each sample, and the small ones
    underflow. So do the positions of a sample, where a few have most of the gradient. With the
    assumptions of :class:`Adaptive` for each sample by itself, and in convolutions for each
    position of gx and group of channels, here i::

        σ_i²    = (mean of gy² over what an element of gx sums over) E[W²] K
        rate(α) = mean over i of P(|N(0, σ_i)| <= u_min / (2 α))

    where u_min / 2 is what rounds to zero; and α is the smallest power of two, at least 1, with
    rate(α) <= T, but at most (u_max / K) / (max|gy| max|W|). The σ_i of positions are counted in
    eighths of powers of two of their squares, which changes the rate by at most 3 %. No policy of
    the paper's: design, section 1.

    Args:
        threshold (float): T, the rate of underflow that is accepted.
        max_scale (float): No bound by default, nor for ``max_total_scale``.
    """

    max_scale: float = math.inf
    max_total_scale: float = math.inf

    scales_weights = True
    needs_window = True

    def predicted_underflow(
        self,
        gy: numpy.ndarray,
        W: numpy.ndarray,
        scale: float = 1.0,
        *,
        terms: Optional[int] = None,
        window: Optional[Window] = None,
    ) -> float:
        """Returns the rate of underflow that the policy expects, which it compares with T.

        See :meth:`Adaptive.predicted_underflow`, and for ``window`` :meth:`Policy.scale`; here it
        is the mean over the samples, or over their positions.
        """
        lost = formats.get(self.format).underflow_threshold
        return _mixture(gy, W, terms_of(W, terms), window).lost(lost / scale)

    def _unbounded_scale(self, gy, W, terms, product, window, backoff):
        format = formats.get(self.format)
        mixture = _mixture(gy, W, terms, window)
        lowest = mixture.smallest_scale(format.underflow_threshold * backoff, self.threshold)
        largest = statistics.largest_magnitude(gy) / backoff * statistics.largest_magnitude(W)
        return numpy.minimum(lowest, format.largest / (terms * largest))

    def _kernel(self, gy, W, terms, product, window, backoff):
        format = formats.get(self.format)
        constants = terms, self.threshold, format.underflow_threshold, format.largest
        if window is None:
            return per_sample_kernels.of_samples(gy, W, *map(float, constants))
        return per_sample_kernels.of_positions(gy, W, window, *map(float, constants))


@dataclasses.dataclass(frozen=True)
class _Mixture:
    """Gaussians: σ of those that are not zero, how many have each, and how many are in all."""

    deviations: numpy.ndarray
    counts: numpy.ndarray
    total: int

    def lost(self, threshold):
        """Returns the mean share of what is not zero, and at most a threshold in magnitude.

        Of what is not finite nothing is lost.
        """
        is_known = self.deviations > 0
        shares = _erf(threshold / (math.sqrt(2) * self.deviations[is_known]))
        return float((self.counts[is_known] * shares).sum()) / max(self.total, 1)

    def smallest_scale(self, threshold, rate):
        """Returns the smallest power of two from 1 at which at most a rate is lost."""
        if not numpy.isfinite(self.deviations).all():
            return numpy.nan
        # erf(x) <= 2 x / sqrt(pi), nearly equal where little is lost: the answer is not beyond,
        # and mostly next to where it is equal.
        at_one = float((self.counts * threshold / (math.sqrt(2) * self.deviations)).sum())
        bound = 2 / math.sqrt(math.pi) * at_one / max(self.total, 1) / rate
        enough = max(math.ceil(math.log2(bound)), 0) if bound > 0 else 0
        too_little, step = enough - 1, 1
        while too_little >= 0 and self.lost(threshold * 2.0**-too_little) <= rate:
            enough, too_little, step = too_little, too_little - step, 2 * step
        too_little = max(too_little, -1)
        while enough - too_little > 1:
            middle = (enough + too_little) // 2
            if self.lost(threshold * 2.0**-middle) <= rate:
                enough = middle
            else:
                too_little = middle
        return 2.0**enough


def _mixture(gy, W, terms, window):
    """Returns the Gaussians of the samples, or of the positions of gx."""
    if window is None:
        moments = statistics.second_moments_by_sample(gy)
        total, counts = moments.size, numpy.ones(moments.size, int)
    else:
        sums = statistics.squares_by_position(gy, window)
        total, (sums, counts) = sums.size, statistics.binned(sums)
        moments = sums / (gy.shape[1] // window.groups * math.prod(window.kernel))
    deviations = numpy.sqrt(moments * (statistics.second_moment(W) * terms))
    is_present = deviations != 0
    return _Mixture(deviations[is_present], counts[is_present], total)


def _erf(x):
    """Returns the error function of x >= 0, to 2e-7 of itself.

    Abramowitz and Stegun, equations 7.1.5 (below 1) and 7.1.26.
    """
    small = numpy.minimum(x, 1)
    square = small * small
    series = numpy.ones_like(small)
    for n in range(10, 0, -1):
        series = 1 - square * series * (2 * n - 1) / (n * (2 * n + 1))
    t = 1 / (1 + 0.3275911 * x)
    tail = 1.061405429
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail = tail * t + coefficient
    with numpy.errstate(under='ignore'):
        large = 1 - tail * t * numpy.exp(-x * x)
    return numpy.where(x < 1, 2 / math.sqrt(math.pi) * small * series, large)
