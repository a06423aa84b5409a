"""Temporary."""

from chainerlp.formats import floor_power_of_two
from chainerlp.kernels.copying import copied, put_back
from chainerlp.kernels.masters import renew
from chainerlp.magnitude_counts import count_rounding_losses as count_losses
from chainerlp.magnitude_counts import magnitude_counts
from chainerlp.statistics import all_arrays_finite, all_finite, largest_magnitude

