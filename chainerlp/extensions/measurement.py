"""What rounding a layer's data gradient to float16 loses, exactly."""

import dataclasses

from chainerlp import formats, functions
from chainerlp.magnitude_counts import count_rounding_losses, magnitude_counts
from chainerlp.statistics import largest_magnitude

LOWEST_EXPONENT, HIGHEST_EXPONENT = -40, 16
"""int: Where the bins of the histograms begin and end, as powers of two."""


@dataclasses.dataclass
class Measurement:
    """What one use of one layer did to its data gradient in one backward pass.

    Attributes:
        layer (str): Path of the link in the model.
        call (int): Which use of the link in the pass, from 0.
        scale (float): α, by which the layer multiplied; 1 where nothing is scaled.
        total_scale (float): The scale that the stored gradient carried.
        underflow (float): Fraction of all elements of gx that are not zero in float32 and are zero
            in the format.
        underflow_unscaled (float): What the same product would have lost with a total scale of 1.
        overflow (float): Fraction of all elements that are finite in float32 and inf in the format.
        absmax (float): Largest magnitude of the stored gradient, in float32.
    """

    layer: str
    call: int
    scale: float
    total_scale: float
    underflow: float
    underflow_unscaled: float
    overflow: float
    absmax: float


def measure(function, in_data, gy, loss_scale, with_histogram=False):
    """Measures the data gradient of a layer, without waiting for the device.

    It forms the float32 product anew from what the function was given.

    Args:
        function (~chainer.FunctionNode): A function that has a data gradient, after its backward.
        in_data (tuple of :ref:`ndarray`): Its inputs.
        gy (:ref:`ndarray`): The gradient of its output as it is stored.
        loss_scale (float): What gy carries unless the function knows.
        with_histogram (bool): Whether to count magnitudes.

    Returns:
        tuple: The numbers of a :class:`Measurement` from ``scale`` on, floats or 0-d arrays; and
        :func:`~chainerlp.magnitude_counts.magnitude_counts` of gx as it is to be stored, or ``None``.
    """
    format = formats.FLOAT16
    product = functions.float32_data_gradient(function, in_data, gy)
    scale = getattr(function, 'scale', 1.0)
    total_scale = getattr(function, 'total_scale', None)
    if total_scale is None:  # plain backward, where only the loss is scaled
        total_scale = loss_scale
    size = max(product.size, 1)
    unscaled, _ = count_rounding_losses(product / (total_scale / scale), format)
    product *= scale
    lost, overflowed = count_rounding_losses(product, format)
    absmax = largest_magnitude(product)
    counts = None
    if with_histogram:
        counts = magnitude_counts(product, LOWEST_EXPONENT, HIGHEST_EXPONENT)
    return (scale, total_scale, lost / size, unscaled / size, overflowed / size, absmax), counts
