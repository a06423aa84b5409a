"""What is done to whole arrays: measuring, counting, choosing, scaling, adding.

Each function is defined by its NumPy code; beside it, where it pays, stands the CUDA kernel that
does the same to CuPy arrays (``..._on_device``). No function waits for the device.
"""

from chainerlp.kernels.choice import (
    AdaptiveConstants,
    Bounds,
    adaptive,
    adaptive_on_device,
    bounded,
    bounded_on_device,
    floor_power_of_two,
)
from chainerlp.kernels.copying import copied, put_back
from chainerlp.kernels.counts import exponent_counts, magnitude_counts, smallest_shift
from chainerlp.kernels.finite import all_arrays_finite, all_finite
from chainerlp.kernels.joining import common_scale, joined_on_device, takes
from chainerlp.kernels.losses import count_losses
from chainerlp.kernels.masters import renew
from chainerlp.kernels.scaling import scaled, scaled_on_device
from chainerlp.kernels.statistics import (
    Statistics,
    largest_magnitude,
    log_moments,
    measure,
    nonzero_range,
    second_moment,
)

__all__ = [
    'AdaptiveConstants',
    'Bounds',
    'Statistics',
    'adaptive',
    'adaptive_on_device',
    'all_arrays_finite',
    'all_finite',
    'bounded',
    'bounded_on_device',
    'common_scale',
    'copied',
    'count_losses',
    'exponent_counts',
    'floor_power_of_two',
    'joined_on_device',
    'largest_magnitude',
    'log_moments',
    'magnitude_counts',
    'nonzero_range',
    'put_back',
    'renew',
    'scaled',
    'scaled_on_device',
    'second_moment',
    'smallest_shift',
    'measure',
    'takes',
]
