"""What a policy is, and the bounds and checks of arguments that the policies share."""

import dataclasses
import math
import numbers
from typing import Any, Optional

from chainerlp import formats
from chainerlp.gpu import on_gpu
from chainerlp.policies.bounds import (
    LARGEST_TOTAL_SCALE,
    bounded,
    choose_on_gpu,
    kept_on_gpu,
    times,
)
from chainerlp.scaled_array import MARGIN
from chainerlp.types import Array, Scale
from chainerlp.window import Window

import numpy


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
        needs_window (bool): Whether ``scale`` takes a ``window``; ``False`` by default.
    """

    interval = 1
    scales_weights = False
    needs_product = True
    needs_window = False

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
            window (~chainerlp.window.Window): Given to a policy that ``needs_window``: which
                positions of gy belong to one of gx; ``None`` where there are rows only.
            backoff (float): The factor, at most 1, by which gradients are kept smaller than the
                policy would have them, because they overflowed. gy / backoff is what it would be
                without: a policy that looks at gy looks at that, so as not to make up for it.

        Returns:
            float or 0-d float32 array: α; a float for NumPy arrays, for CuPy arrays an array on
            their device (or a float, if it is a constant).
        """
        raise NotImplementedError(f'{type(self).__name__} has no method scale')

    def scale_and_total(
        self, gy: Array, W: Optional[Array], total_scale: Scale = 1.0, **context: Any
    ) -> tuple[Scale, Scale]:
        """Returns α and the total scale that gx then carries, their product.

        A policy whose kernel chooses α has it form the product, too, which saves a launch.

        Args:
            gy (:ref:`ndarray`): As of :meth:`scale`, like all others.
            W (:ref:`ndarray`): As there.
            total_scale (float or 0-d array): As there.
            **context: The others.
        """
        scale = self.scale(gy, W, total_scale, **context)
        return scale, times(total_scale, scale)

    def within_bounds(self, scale: Scale, total_scale: Scale, backoff: float = 1.0) -> Scale:
        """Returns a scale that was kept over an ``interval``, smaller where bounds ask for it now.

        What gy carries may have grown since. By default there are no bounds.

        Args:
            scale (float or 0-d array): What :meth:`scale` returned.
            total_scale (float or 0-d array): As there.
            backoff (float): As there.
        """
        return scale


def check(policy: Policy) -> Policy:
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


def scale_and_total(policy, *arguments, **context):
    """Calls :meth:`Policy.scale_and_total`, which a policy that is no subclass need not have."""
    method = getattr(policy, 'scale_and_total', None)
    if method is None:
        return Policy.scale_and_total(policy, *arguments, **context)
    return method(*arguments, **context)


def window_for(policy, window):
    """Returns the argument ``window`` for a policy that takes one, and none for others."""
    return {'window': window} if getattr(policy, 'needs_window', False) else {}


def kept_scale_and_total(policy, held, total_scale, backoff):
    """Returns α and the total scale of gx: ``held``, where the policy's bounds allow for it.

    On a GPU in one launch, unless the policy has a ``within_bounds`` of its own.
    """
    has_bounds = getattr(type(policy), 'within_bounds', None) is Bounded.within_bounds
    if has_bounds and (on_gpu(held) or on_gpu(total_scale)):
        return kept_on_gpu(held, total_scale, backoff, policy.bounds())
    scale = policy.within_bounds(held / total_scale, total_scale, backoff)
    return scale, times(total_scale, scale)


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
        lambda v: is_real(v) and v >= 1 and isinstance(v, numbers.Integral),
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

    def scale(
        self,
        gy: Array,
        W: Optional[Array],
        total_scale: Scale = 1.0,
        *,
        terms: Optional[int] = None,
        product: Optional[Array] = None,
        window: Optional[Window] = None,
        backoff: float = 1.0,
    ) -> Scale:
        """Returns the factor α for a layer's data gradient; see :meth:`Policy.scale`."""
        chosen = self._choose_on_gpu(gy, W, total_scale, terms, product, window, backoff)
        if chosen is not None:
            return chosen[0]
        alpha = 1.0
        if _are_none_empty(gy, W):
            with numpy.errstate(all='ignore'):
                alpha = self._unbounded_scale(gy, W, terms_of(W, terms), product, window, backoff)
        return self.within_bounds(alpha, total_scale, backoff)

    def scale_and_total(
        self, gy: Array, W: Optional[Array], total_scale: Scale = 1.0, **context: Any
    ) -> tuple[Scale, Scale]:
        """Returns α and the total scale of gx; see :meth:`Policy.scale_and_total`."""
        chosen = None
        if type(self).scale is Bounded.scale:  # and no subclass has one of its own
            chosen = self._choose_on_gpu(gy, W, total_scale, **context)
        if chosen is not None:
            return chosen
        return super().scale_and_total(gy, W, total_scale, **context)

    def within_bounds(self, scale: Scale, total_scale: Scale, backoff: float = 1.0) -> Scale:
        """Returns a scale within the bounds; see :meth:`Policy.within_bounds`."""
        if backoff != 1:  # on a GPU, dividing would be a launch
            total_scale = total_scale / backoff
        return bounded(scale, total_scale, *self.bounds())

    def _unbounded_scale(self, gy, W, terms, product, window, backoff):
        """Returns α before it is bounded: a float64 scalar or 0-d array; it may be NaN or inf."""
        raise NotImplementedError

    def _kernel(self, gy, W, terms, product, window, backoff):
        """Returns what launches a kernel with a ``Choice`` of α that is the policy's; or ``None``.

        See :func:`chainerlp.policies.bounds.choose_on_gpu`. Arrays are on a GPU, none is empty.
        """
        return None

    def _choose_on_gpu(
        self, gy, W, total_scale, terms=None, product=None, window=None, backoff=1.0
    ):
        """Returns α and the total scale of gx, or ``None`` where no kernel chooses them."""
        if not on_gpu(gy) or not _are_none_empty(gy, W):
            return None
        launch = self._kernel(gy, W, terms_of(W, terms), product, window, backoff)
        if launch is None:
            return None
        return choose_on_gpu(launch, total_scale, backoff, self.bounds())

    def bounds(self) -> tuple[float, float, bool]:
        """Returns largest scale, largest total scale, and whether scales are powers of two."""
        return self.max_scale, min(self.max_total_scale, LARGEST_TOTAL_SCALE), self.power_of_two


def _are_none_empty(gy, W):
    return gy.size > 0 and (W is None or W.size > 0)


def terms_of(W, terms):
    """Returns K: what is given, or that of a plain layer with the weight W."""
    if terms is None and W is not None:
        return W.shape[0] * math.prod(W.shape[2:])
    return terms
