"""Subtracting the mean, dividing by the standard deviation."""

import dataclasses
from typing import Any

import numpy

# Of the training images of ImageNet, red, green, blue, in units of pixels (0 to 255), as ResNets
# are commonly trained with.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclasses.dataclass(frozen=True, eq=False)
class Normalization:
    """From pixels to a network's input: (pixels - mean) / std, in float32, rounded once.

    Attributes:
        mean: In units of pixels (0 to 255): one number a channel, or an array of an image's shape.
        std: The same; one number a channel.
        dtype (numpy.dtype): Of the result.
    """

    mean: Any
    std: Any
    dtype: Any

    def __call__(self, image):
        """Normalizes an image.

        Args:
            image: uint8 of shape (channels, height, width), or a Pillow image.

        Returns:
            numpy.ndarray: The image, of shape (channels, height, width).
        """
        if not isinstance(image, numpy.ndarray):
            # A copy with the channels first, while it is small: NumPy is slow with them last.
            image = numpy.ascontiguousarray(numpy.asarray(image).transpose(2, 0, 1))
        normalized = numpy.subtract(image, _by_channel(self.mean), dtype=numpy.float32)
        normalized /= _by_channel(self.std)
        return normalized.astype(self.dtype, copy=False)


def _by_channel(values):
    values = numpy.asarray(values, numpy.float32)
    return values[:, None, None] if values.ndim == 1 else values
