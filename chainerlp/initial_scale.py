"""The scale that a backward pass begins with, by delayed scaling.

The gradient of the loss can underflow before any layer is there to scale it: divided by the batch
size, cast to float16. No layer brings back what is lost there. So each pass begins with the scale
that the one before should have had. Design, section 1.
"""

import copy
import itertools

from chainerlp import formats
from chainerlp.gpu import on_gpu
from chainerlp.overflow import is_matter_of_scales
from chainerlp.policies.policy import is_real, margin_of
from chainerlp.scaled_array import MARGIN
from chainerlp.statistics import largest_magnitude

import chainer
import numpy
from chainer import backend
from chainer.backends import cuda

_LARGEST = 2.0**24
# A gradient of 1 times this is still finite in float16.
_LARGEST_FOR_HALF = 2.0**15
# Clean passes after which a limit that was lowered is raised again, and how low it may become.
_RAISE_INTERVAL = 200
_LOWEST_LIMIT = 2.0**-10
# So many are compared in one launch.
_NUMBERS_A_LAUNCH = 16


def initial_scale_of(scale, policy):
    """Returns what an optimizer's ``initial_scale`` stands for.

    A :class:`FixedScale` or, of ``'auto'``, a :class:`DelayedScale` with the policy's margin and
    bound.

    Raises:
        ValueError: If it is neither ``'auto'`` nor a number that float32 can be scaled by.
    """
    if isinstance(scale, str) and scale == 'auto':
        return DelayedScale(getattr(policy, 'max_total_scale', numpy.inf), margin_of(policy))
    smallest = formats.FLOAT32.smallest_normal
    if not is_real(scale) or not smallest <= scale <= 1 / smallest:
        raise ValueError(
            f"initial_scale must be 'auto' or a positive number from 2^-126 to 2^126, not {scale!r}"
        )
    return FixedScale(float(scale))


class FixedScale:
    """An initial scale that stays what it is, with the interface of :class:`DelayedScale`."""

    is_known = True

    def __init__(self, scale):
        self.scale = scale

    def observe(self, gradients, loss_dtype):
        """Takes no notice of a pass."""
        return False

    def after(self, verdicts):
        """Returns itself."""
        return self

    def serialize(self, serializer):
        """Saves the scale; loads nothing, since it was given anew."""
        serializer('initial_scale', self.scale)


class DelayedScale:
    """Chooses the initial scale of a pass from the gradients of the pass before.

    It is the largest power of two at which the largest float16 gradient that no layer could scale
    would have stayed under 65504 / 2^margin. Passes in which these gradients are all zero, or not
    all finite, say nothing. On a GPU the scale stays there, and nothing waits for it.

    Behind the first layers there are functions that make gradients larger than the margin allows
    for, such as the square roots of a twice differentiated LayerNormalization. So an overflow
    halves both the scale and that limit, down to 2^-10 of it; after 200 passes without another, the
    limit is doubled.

    Args:
        largest (float): What the scale must not exceed.
        margin (float): Powers of two that are left for what comes before the next layer chooses.

    Attributes:
        scale (float or 0-d float32 array): The scale of the next pass; 1 at first.
    """

    def __init__(self, largest=numpy.inf, margin=MARGIN):
        self.scale = 1.0
        self._is_known = False  # or a 0-d array on the device
        self._largest = min(largest, _LARGEST)
        self._limit = self._highest_limit = formats.FLOAT16.largest * 2.0**-margin
        self._passes = 0  # since the last overflow, or the last change of the limit

    @property
    def is_known(self):
        """bool: Whether a pass said something, or a snapshot was loaded; waits for the device."""
        return bool(self._is_known)

    def observe(self, gradients, loss_dtype):
        """Takes note of a pass.

        Args:
            gradients (list of ~chainerlp.scaled_array.ScaledArray): Its
                :attr:`~chainerlp.backprop.ScaledBackprop.first_gradients`.
            loss_dtype (numpy.dtype): The dtype of its loss, whose gradient is 1 times the scale.

        Returns:
            bool: Whether the scale has become known by this pass; on a GPU, where that cannot be
            told without waiting, whether this is the first pass.
        """
        self._passes += 1
        if self._passes == _RAISE_INTERVAL:
            self._passes = 0
            self._limit = min(2 * self._limit, self._highest_limit)
        if not gradients:
            return False
        was_unknown = self._is_known is False
        bound = self._largest
        if loss_dtype == numpy.float16:
            bound = min(bound, _LARGEST_FOR_HALF)
        maxima = [largest_magnitude(g.array) for g in gradients]
        scales = [g.scale for g in gradients]
        if any(map(on_gpu, maxima)):
            largest = _largest_on_gpu(maxima, scales)
            self.scale, self._is_known = _choose_on_gpu(
                largest, self._limit, bound, self.scale, self._is_known
            )
            return was_unknown
        largest = [maximum / scale for maximum, scale in zip(maxima, scales)]
        if 0 < numpy.max(largest) < numpy.inf:
            self._is_known = True
            self.scale = float(formats.floor_power_of_two(min(self._limit / max(largest), bound)))
        return was_unknown and self._is_known is not False

    def after(self, verdicts):
        """Returns a lower one if there was an overflow, or else this one.

        For ``verdicts`` see :func:`~chainerlp.overflow.is_matter_of_scales`.
        """
        if not is_matter_of_scales(verdicts):
            return self
        lower = copy.copy(self)
        lower._passes = 0
        if self._limit > _LOWEST_LIMIT * self._highest_limit:
            lower._limit = self._limit / 2
            with chainer.using_device(backend.get_device_from_array(self.scale)):
                lower.scale = self.scale * 0.5
        return lower

    def serialize(self, serializer):
        """Saves or loads the scale, and by how much the limit is lowered."""
        saved = float(serializer('initial_scale', float(self.scale) if self.is_known else 0.0))
        if saved > 0:
            self.scale, self._is_known = saved, True
        try:
            share = float(serializer('initial_limit', self._limit / self._highest_limit))
            self._passes = int(serializer('initial_passes', self._passes))
        except KeyError:  # the scale was a fixed one, which has no limit
            return
        self._limit = share * self._highest_limit


def _largest_on_gpu(maxima, scales):
    """Returns the largest of maxima without their scales, NaN if there is one."""
    device = backend.GpuDevice.from_array(next(filter(on_gpu, maxima)))
    numbers = [device.send(each) if on_gpu(each) else each for each in (*maxima, *scales)]
    maxima, scales = numbers[: len(maxima)], numbers[len(maxima) :]
    largest = 0.0
    for start in range(0, len(maxima), _NUMBERS_A_LAUNCH):
        some = slice(start, start + _NUMBERS_A_LAUNCH)
        largest = _larger_on_gpu(largest, maxima[some], scales[some])
    return largest


def _larger_on_gpu(before, maxima, scales):
    types = ['float32' if on_gpu(scale) else 'float64' for scale in scales]
    largest = 'before'
    for k in range(len(maxima)):
        largest = f'larger({largest}, x{k} / s{k})'
    numbers = [f'float64 x{k}, {type_of_scale} s{k}' for k, type_of_scale in enumerate(types)]
    return cuda.elementwise(
        ', '.join(['float64 before', *numbers]),
        'float64 largest',
        f'largest = {largest}',
        'chainerlp_largest_of_true_gradients',
        preamble="""
        __device__ inline double larger(double a, double b) {
            return a >= b || isnan(a) ? a : b;
        }
        """,
    )(before, *itertools.chain.from_iterable(zip(maxima, scales)))


def _choose_on_gpu(largest, limit, bound, before, was_known):
    kernel = cuda.elementwise(
        'float64 largest, float64 limit, float64 bound, float32 before, bool was_known',
        'float32 scale, bool is_known',
        """
        const bool says_something = largest > 0 && isfinite(largest);
        scale = says_something ? floor_power_of_two(min(limit / largest, bound)) : before;
        is_known = was_known || says_something;
        """,
        'chainerlp_delayed_scale',
        preamble=formats.CUDA_FLOOR_POWER_OF_TWO,
    )
    return kernel(largest, limit, bound, before, was_known)
