"""When the scale of a layer is chosen, and how long it is kept."""

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from typing import Any, Optional

from chainerlp import formats
from chainerlp.gpu import number_for, on_gpu
from chainerlp.policies.bounds import times
from chainerlp.policies.policy import (
    Bounded,
    Policy,
    kept_scale_and_total,
    scale_and_total,
    window_for,
)
from chainerlp.statistics import largest_magnitude
from chainerlp.types import Array, Scale
from chainerlp.window import Window

import chainer
import numpy
from chainer.backends import cuda


@dataclasses.dataclass
class _Held:
    total_scale: Scale  # of gx
    age: int  # how many passes have used it


ROUNDED_TO = ('float16', 'bfloat16', 'float8_e5m2', 'float8_e4m3')
"""tuple of str: The formats that factors and gradients may be rounded to."""


def check_formats(compute_dtype, gradient_format):
    """Raises ValueError if one is none of :data:`ROUNDED_TO`, nor ``None``, or both are given."""
    given = {'compute_dtype': compute_dtype, 'gradient_format': gradient_format}
    for what, name in given.items():
        if name is not None and name not in ROUNDED_TO:
            raise ValueError(f'{what} must be one of {", ".join(ROUNDED_TO)}, not {name!r}')
    if None not in given.values():
        raise ValueError(
            f'compute_dtype {compute_dtype!r} and gradient_format {gradient_format!r} exclude each'
            ' other: give one'
        )


# A format as wide as float32 would let a policy fill it, and no sum of products have room.
_LARGEST_FACTOR = 2.0**64


def _within(scale, total_scale, array, largest):
    """Returns a scale, or the largest power of two at which no element is over a magnitude.

    And, times that, the total scale.
    """
    if on_gpu(array):
        return _within_on_gpu(scale, total_scale, largest_magnitude(array), largest)
    with numpy.errstate(divide='ignore'):
        highest = largest / largest_magnitude(array)
    if scale > highest:  # not if it is NaN
        scale = float(formats.floor_power_of_two(highest))
    return scale, times(total_scale, scale)


def _within_on_gpu(*arguments):
    return cuda.elementwise(
        'float32 scale, float32 carried, float64 magnitude, float64 largest',
        'float32 alpha, float32 total',
        """
        const double highest = largest / magnitude;
        alpha = scale > highest ? floor_power_of_two(highest) : scale;
        total = carried * alpha;
        """,
        'chainerlp_scale_within_format',
        preamble=formats.CUDA_FLOOR_POWER_OF_TWO,
    )(*arguments)


def _in_format(policy, format):
    return dataclasses.replace(policy, format=format) if isinstance(policy, Bounded) else policy


class LayerScale:
    """Chooses the scale of each use of a layer, and keeps it for the policy's interval.

    What is kept is the total scale of gx. As long as gy carries the same total scale, so is α.

    Args:
        policy: One of :mod:`chainerlp.policies`.
        scale_weights (bool): Whether the layer's weight gradients get scales of their own.
            ``None`` leaves it to the policy.
        compute_dtype (str): Name of the format that the factors of a float32 layer are rounded to;
            ``None`` leaves such a layer as it is. A policy that has a ``format`` follows it.
        gradient_format (str): Name of the format that data gradients are rounded to, before they
            are stored in their own dtype; likewise.

    Attributes:
        policy: The policy.
        scale_weights (bool): See above, decided.
        compute_dtype (str): See above.
        gradient_format (str): See above.
        saturated (int or 0-d array): How many elements of factors were saturated so far.
    """

    def __init__(
        self,
        policy: Policy,
        scale_weights: Optional[bool] = None,
        compute_dtype: Optional[str] = None,
        gradient_format: Optional[str] = None,
    ) -> None:
        if gradient_format is not None:
            policy = _in_format(policy, gradient_format)
        self.policy = policy
        self.scale_weights = policy.scales_weights if scale_weights is None else scale_weights
        self._cast_policy = policy if compute_dtype is None else _in_format(policy, compute_dtype)
        self.compute_dtype: Any = compute_dtype
        self.gradient_format = gradient_format
        self.saturated = 0
        self._held = {}

    @property
    def rounds(self) -> bool:
        """bool: Whether a float32 layer rounds anything."""
        return self.compute_dtype is not None or self.gradient_format is not None

    def anew(self) -> 'LayerScale':
        """Returns another one of the same settings, which keeps nothing yet."""
        rounded_to = self.compute_dtype, self.gradient_format
        return LayerScale(self.policy, self.scale_weights, *rounded_to)

    def choose(
        self,
        call: int,
        gy: Array,
        W: Optional[Array],
        total_scale: Scale,
        *,
        terms: int,
        product: Optional[Array],
        window: Optional[Window] = None,
        backoff: float,
        data_input: int = 0,
        is_cast: bool = False,
    ) -> tuple[Scale, Scale]:
        """Returns α for one use of the layer, and the total scale of gx.

        See :meth:`chainerlp.policies.Policy.scale_and_total`.

        Args:
            call (int): Which use of the layer in this pass, from 0.
            gy (:ref:`ndarray`): As there, like the following.
            W (:ref:`ndarray`): Weight.
            total_scale (float or 0-d array): The scale that gy carries.
            terms (int): K of the paper.
            product (:ref:`ndarray`): gx in float32, before α.
            window (~chainerlp.window.Window): Which positions of gy belong to one of gx.
            backoff (float): What gradients are multiplied by because of overflows.
            data_input (int): Which of the layer's data inputs gx belongs to, from 0.
            is_cast (bool): Whether ``product`` is gy, which is rounded to the ``compute_dtype``.
        """
        policy = self._cast_policy if is_cast else self.policy
        held = self._held.get((call, data_input))
        is_kept = held is not None and held.age < policy.interval
        if is_kept:
            kept = number_for(gy, held.total_scale)
            scale, total = kept_scale_and_total(policy, kept, total_scale, backoff)
        else:
            context = {'terms': terms, 'product': product, 'backoff': backoff}
            scale, total = scale_and_total(
                policy, gy, W, total_scale, **context, **window_for(policy, window)
            )
        if is_cast:
            largest = formats.get(self.compute_dtype).largest
            if is_kept or largest > _LARGEST_FACTOR:  # nothing overflows that would forget a scale
                largest = min(largest, _LARGEST_FACTOR)
                scale, total = _within(scale, total_scale, product, largest)
        if not is_kept:
            held = self._held[call, data_input] = _Held(total, age=0)
        held.age += 1
        return scale, total

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """While it lasts, scales are chosen as ever; afterwards it is as it was."""
        before = copy.deepcopy(self._held), self.saturated + 0  # of an array on a GPU, a copy
        try:
            yield
        finally:
            self._held, self.saturated = before

    def forget(self) -> None:
        """Drops the scales that are kept, so that the next pass chooses anew."""
        self._held.clear()

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Saves or loads the scales that are kept, with their age within the interval."""
        if isinstance(serializer, chainer.Deserializer):
            rows = serializer('held', None)
            if self.compute_dtype is not None:
                self.saturated = _saturated_in(serializer)
            if rows is None:  # from a deserializer that is not strict
                rows = ()
            self._held = {
                (int(call), int(data_input)): _Held(float(total_scale), int(age))
                for call, data_input, total_scale, age in rows
            }
        else:
            rows = [(*key, float(h.total_scale), h.age) for key, h in sorted(self._held.items())]
            serializer('held', numpy.array(rows, numpy.float64).reshape(-1, 4))
            if self.compute_dtype is not None:
                serializer('saturated', int(self.saturated))


def _saturated_in(serializer):
    try:
        return int(serializer('saturated', None) or 0)
    except (KeyError, ValueError):  # of npz, of HDF5: of a training without a compute_dtype
        return 0
