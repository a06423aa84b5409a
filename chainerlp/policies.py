"""How the scale of a layer is chosen: one frozen dataclass and one formula a policy.

Every policy has ``scale(gy, W, total_scale=1.0)``, which returns the factor α by which a layer
multiplies gx = gy · W before it is rounded. Arrays hold what is stored, that is, ``total_scale``
times the true gradient. Where a formula has no answer (an empty array, gy or W all zero, inf or NaN
among them) α is 1; the bounds hold all the same.
"""

import dataclasses
import math
import numbers
import statistics

from chainerlp import formats, kernels, products, rounding

import numpy
from chainer import backend

# A total scale and its reciprocal have to be normal numbers of float32, in which they are applied.
_LARGEST_TOTAL_SCALE = 1 / formats.FLOAT32.smallest_normal


_CHECKS = {
    'threshold': (lambda v: _is_real(v) and 0 < v < 1, 'a rate between 0 and 1'),
    'margin': (lambda v: _is_real(v) and 0 <= v < math.inf, 'a number of powers of two from 0'),
    'max_scale': (lambda v: _is_real(v) and v > 0, 'a positive number (inf is no bound)'),
    'max_total_scale': (lambda v: _is_real(v) and v > 0, 'a positive number (inf is no bound)'),
    'power_of_two': (lambda v: isinstance(v, bool), 'True or False'),
    'interval': (lambda v: _is_integer(v) and v >= 1, 'a number of iterations from 1'),
    'format': (formats.get, 'the name of a format'),
}


def _is_real(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_integer(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


@dataclasses.dataclass(frozen=True)
class _Threshold:
    threshold: float = 1e-3


@dataclasses.dataclass(frozen=True)
class _Margin:
    margin: float = 4.0


@dataclasses.dataclass(frozen=True)
class _Bounds:
    """The bounds and the rounding that policies share; a bound of inf is no bound."""

    max_scale: float = 16.0
    max_total_scale: float = 1024.0
    power_of_two: bool = True
    interval: int = 1
    format: str = 'float16'

    scales_weights = False

    def __post_init__(self):
        for field in dataclasses.fields(self):
            check, allowed = _CHECKS[field.name]
            value = getattr(self, field.name)
            try:
                is_right = check(value)
            except ValueError as error:  # it lists the formats that there are
                raise ValueError(f'{type(self).__name__}: {error}') from None
            if not is_right:
                raise ValueError(
                    f'{type(self).__name__}: {field.name} must be {allowed}, not {value!r}'
                )

    def scale(self, gy, W, total_scale=1.0, *, terms=None, product=None, backoff=1.0):
        """Returns the factor α for a layer's data gradient.

        Args:
            gy (:ref:`ndarray`): Gradient of the layer's output as it is stored, float16 or float32.
            W (:ref:`ndarray`): The layer's weight, (out, in) or (out, in / groups, kh, kw).
            total_scale (float or 0-d array): The scale that gy carries.
            terms (int): How many products are summed into an element of gx (K of the paper); by
                default ``out``, or ``out * kh * kw``.
            product (:ref:`ndarray`): gx in float32, before α. Policies that look at it form it
                themselves if it is not given (then W is a plain layer's: stride 1, no padding).
            backoff (float): The factor, at most 1, by which gradients are kept smaller than the
                policy would have them, because they overflowed. The policy is shown gy / backoff,
                so that it does not make up for it.

        Returns:
            float or 0-d float32 array: α; a float for NumPy arrays, for CuPy arrays an array on
            their device.
        """
        xp = backend.get_array_module(gy)
        terms = _terms(W, terms)
        is_empty = gy.size == 0 or (W is not None and W.size == 0)
        with numpy.errstate(all='ignore'):
            alpha = xp.ones(())
            if not is_empty:
                alpha = self._unbounded(gy, W, terms, product, backoff)
            alpha = kernels.bounded(alpha, total_scale / backoff, self._bounds)
        return float(alpha) if xp is numpy else alpha.astype(numpy.float32)

    def within_bounds(self, scale, total_scale, backoff=1.0):
        """Returns a scale that was chosen before, made smaller where the bounds ask for it now.

        Args:
            scale (float or 0-d array): What :meth:`scale` returned.
            total_scale (float or 0-d array): As there.
            backoff (float): As there.
        """
        if isinstance(scale, float):
            if isinstance(total_scale, (float, numpy.generic)):
                return float(kernels.bounded(scale, total_scale / backoff, self._bounds))
            # It was loaded from a snapshot; no copy from the host, but a fill.
            xp = backend.get_array_module(total_scale)
            scale = xp.full((), scale, numpy.float32)
        return kernels.bounded_on_device(scale, total_scale / backoff, self._bounds)

    @property
    def _bounds(self):
        limit = min(self.max_total_scale, _LARGEST_TOTAL_SCALE)
        return kernels.Bounds(self.max_scale, limit, self.power_of_two)


@dataclasses.dataclass(frozen=True)
class Adaptive(_Bounds, _Threshold):
    """The paper's policy: the smallest scale at which a Gaussian underflows at a rate of T at most.

    With gy and W independent and zero-centred, an element of gx has the variance
    σ² = E[gy²] E[W²] K / 2 (the half for the ReLU that zeroes about half of the terms), and

        α_low  = u_min / (Φ⁻¹((1 + T) / 2) σ),      α_high = (u_max / K) / (max|gy| max|W|)
        α      = min(max(α_low, 1), α_high),        then the bounds, then down to a power of two.

    arXiv 1910.12385, section 3 (``approx_range`` of its code).

    Args:
        threshold (float): T, the rate of underflow that is accepted.
        max_scale (float): Largest α; the authors ran with 16, 128 and 65504.
        max_total_scale (float): Largest product of all α down to a layer.
        power_of_two (bool): Round α down to a power of two, so that multiplying by it is exact.
        interval (int): α is chosen anew every so many backward passes (iterations, unless gradients
            accumulate over several) and kept in between.
        format (str): The format that gx is rounded to, see :mod:`chainerlp.formats`.
    """

    def scale(self, gy, W, total_scale=1.0, *, terms=None, product=None, backoff=1.0):
        """Returns the factor α for a layer's data gradient; see :meth:`Amax.scale`."""
        if backend.get_array_module(gy) is numpy:
            return super().scale(gy, W, total_scale, terms=terms, backoff=backoff)
        constants = self._constants(_terms(W, terms), backoff)
        return kernels.adaptive_on_device(gy, W, constants, total_scale, self._bounds)

    def _unbounded(self, gy, W, terms, product, backoff):
        return kernels.adaptive(gy, W, self._constants(terms, backoff))

    def _constants(self, terms, backoff):
        # (1 - T) / 2, whose quantile is the same but for the sign, is never rounded to 1.
        quantile = abs(statistics.NormalDist().inv_cdf((1 - self.threshold) / 2))
        format = formats.get(self.format)
        return kernels.AdaptiveConstants(
            terms, quantile, format.smallest_subnormal, format.largest, backoff
        )


@dataclasses.dataclass(frozen=True)
class Fixed:
    """One constant for every layer it is given to, whatever the gradient.

    ``Fixed(1)`` leaves gradients as they are; together with ``initial_scale`` of
    :class:`~chainerlp.AdaptiveLossScaling` it is static loss scaling.

    Args:
        scale (float): α, a positive, finite number.
    """

    constant: float

    interval = 1
    scales_weights = False

    def __init__(self, scale):
        if not _is_real(scale) or not 0 < scale < math.inf:
            raise ValueError(f'Fixed: scale must be a positive, finite number, not {scale!r}')
        object.__setattr__(self, 'constant', float(scale))

    def __repr__(self):
        return f'Fixed({self.constant!r})'

    def scale(self, gy, W, total_scale=1.0, *, terms=None, product=None, backoff=1.0):
        """Returns the constant; see :meth:`Adaptive.scale`."""
        xp = backend.get_array_module(gy)
        return self.constant if xp is numpy else xp.asarray(self.constant, numpy.float32)


@dataclasses.dataclass(frozen=True)
class AbsRange(_Bounds):
    """Looks at the extremes of gy and W only (``abs_range`` of the paper's code).

    With o_min (at least 1e-15) and o_max the smallest and largest of the four products of the
    smallest and largest nonzero |gy| and |W|:
    α = min(max((u_min / K) / o_min, 1), (u_max / K) / o_max), then as :class:`Adaptive`.
    """

    def _unbounded(self, gy, W, terms, product, backoff):
        xp = backend.get_array_module(gy)
        format = formats.get(self.format)
        gy_smallest, gy_largest = kernels.nonzero_range(gy)
        W_smallest, W_largest = kernels.nonzero_range(W)
        smallest = xp.maximum(gy_smallest / backoff * W_smallest, 1e-15)
        lowest = xp.maximum(format.smallest_subnormal / terms / smallest, 1.0)
        return xp.minimum(lowest, format.largest / terms / (gy_largest / backoff * W_largest))


@dataclasses.dataclass(frozen=True)
class ElementWiseRange(_Bounds):
    """Saves the smallest of all products gy_ik W_kj, unless the largest forbids it.

    α = min(max over p of max(u_min / |p|, 1), min over p of u_max / |p|, over K), over the nonzero
    products p, then as :class:`Adaptive`. The paper's code forms every product, far too slow to
    train with. For each k the extremes of the products are the products of the extremes, which
    gives the same α from the extremes of each output channel.
    """

    def _unbounded(self, gy, W, terms, product, backoff):
        xp = backend.get_array_module(gy)
        format = formats.get(self.format)
        smallest, largest = numpy.inf, 0.0
        for channel in range(W.shape[0]):
            gy_smallest, gy_largest = kernels.nonzero_range(gy[:, channel])
            W_smallest, W_largest = kernels.nonzero_range(W[channel])
            smallest = xp.minimum(smallest, gy_smallest / backoff * W_smallest)
            largest = xp.maximum(largest, gy_largest / backoff * W_largest)
        lowest = xp.maximum(format.smallest_subnormal / smallest, 1.0)
        return xp.minimum(lowest, format.largest / largest / terms)


@dataclasses.dataclass(frozen=True)
class LogNormal(_Bounds, _Threshold):
    """For a cast from float32: the scale at which a log-normal g underflows at a rate of T.

    α = exp(ln u_min − μ − σ Φ⁻¹(T)) with μ and σ the mean and the standard deviation of ln|g| over
    the nonzero g, at most u_max / max|g|; then as :class:`Adaptive`. g is what is about to be
    rounded: the product where a layer hands it in, otherwise gy; W is not looked at and may be
    ``None``.
    """

    def _unbounded(self, gy, W, terms, product, backoff):
        xp = backend.get_array_module(gy)
        format = formats.get(self.format)
        gradient = gy if product is None else product
        mean, deviation = kernels.log_moments(gradient)
        quantile = statistics.NormalDist().inv_cdf(self.threshold)
        exponent = math.log(format.smallest_subnormal) - mean - deviation * quantile
        largest = kernels.largest_magnitude(gradient) / backoff
        return xp.minimum(backoff * xp.exp(exponent), format.largest / largest)


@dataclasses.dataclass(frozen=True)
class Amax(_Bounds, _Margin):
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

    def _unbounded(self, gy, W, terms, product, backoff):
        product = _product(gy, W) if product is None else product
        return self._largest(product, backoff)

    def _largest(self, product, backoff):
        limit = formats.get(self.format).largest * 2.0**-self.margin
        return limit / (kernels.largest_magnitude(product) / backoff)


@dataclasses.dataclass(frozen=True)
class Measured(Amax, _Threshold):
    """The smallest scale at which the measured underflow is T at most.

    That is the smallest power of two, at least 1, at which the share of the nonzero elements of gx
    that round to zero (magnitudes up to u_min / 2) is at most T; but never more than :class:`Amax`
    allows.

    Args:
        threshold (float): T, the rate of underflow that is accepted.
        margin (float): As :class:`Amax`'s.
    """

    def _unbounded(self, gy, W, terms, product, backoff):
        xp = backend.get_array_module(gy)
        product = _product(gy, W) if product is None else product
        counts = kernels.exponent_counts(product)
        lost = formats.get(self.format).underflow_threshold
        lowest = xp.maximum(backoff * kernels.smallest_shift(counts, lost, self.threshold), 1.0)
        return xp.minimum(lowest, self._largest(product, backoff))


def _terms(W, terms):
    if terms is None and W is not None:
        return W.shape[0] * math.prod(W.shape[2:])
    return terms


def _product(gy, W):
    return products.default_data_gradient(rounding.to_float32(gy), rounding.to_float32(W))
