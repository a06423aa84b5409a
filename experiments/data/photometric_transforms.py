"""Transforms of the values of pixels: normalization, and photometric distortion."""

import dataclasses
from typing import Any

from experiments.data.geometric_transforms import coin_toss

import numpy
from PIL import Image

# Of the training images of ImageNet, red, green, blue, in units of pixels (0 to 255), as ResNets
# are commonly trained with.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
# The mean colour that VGG-16 was trained with, which SSD starts from.
VGG_MEAN = (123, 117, 104)

_BRIGHTNESS = 32.0
_CONTRAST = (0.5, 1.5)
_SATURATION = (0.5, 1.5)
_HUE_DEGREES = 18.0
_LEVELS = numpy.arange(256)


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
        """Returns an image, of uint8 (channels, height, width) or Pillow's, normalized."""
        if not isinstance(image, numpy.ndarray):
            # A copy with the channels first, while it is small: NumPy is slow with them last.
            image = numpy.ascontiguousarray(numpy.asarray(image).transpose(2, 0, 1))
        normalized = numpy.subtract(image, _by_channel(self.mean), dtype=numpy.float32)
        normalized /= _by_channel(self.std)
        return normalized.astype(self.dtype, copy=False)


def _by_channel(values):
    values = numpy.asarray(values, numpy.float32)
    return values[:, None, None] if values.ndim == 1 else values


def pixel_statistics(counts):
    """Computes mean and standard deviation of the pixels of many images, exactly.

    Args:
        counts (numpy.ndarray): (channels, 256): pixels of each value.

    Returns:
        tuple: Means and standard deviations, each a tuple of a float a channel, in units of pixels.
        The deviation of a channel of one value is taken as 1, so that it can be divided by.
    """
    shares = counts / counts.sum(axis=1, keepdims=True)
    means = shares @ _LEVELS
    variances = (shares * (_LEVELS - means[:, None]) ** 2).sum(axis=1)
    return tuple(means.tolist()), tuple(std or 1.0 for std in numpy.sqrt(variances).tolist())


def distort(image, rng, swap_rate=0.0):
    """Changes brightness, contrast, saturation and hue, as SSD is trained with.

    Liu et al. 2016, section 2.2, after Howard 2013; the ranges are those of the authors' released
    configuration. Each distortion happens with a probability of a half, but for the swap of
    channels, which that configuration turns off.

    Args:
        image (PIL.Image.Image): In mode RGB.
        rng (numpy.random.Generator): Draws what happens, and how much of it.
        swap_rate (float): Probability that the channels change places.
    """
    if coin_toss(rng):
        image = _brightness(image, rng)
    order = (_contrast, _saturation, _hue) if coin_toss(rng) else (_saturation, _hue, _contrast)
    for change in order:
        if coin_toss(rng):
            image = change(image, rng)
    if rng.random() < swap_rate:
        channels = image.split()
        image = Image.merge('RGB', [channels[i] for i in rng.permutation(3)])
    return image


def _brightness(image, rng):
    return image.point(_lookup_table(_LEVELS + rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)) * 3)


def _contrast(image, rng):
    return image.point(_lookup_table(_LEVELS * rng.uniform(*_CONTRAST)) * 3)


def _saturation(image, rng):
    hue, saturation, value = image.convert('HSV').split()
    saturation = saturation.point(_lookup_table(_LEVELS * rng.uniform(*_SATURATION)))
    return Image.merge('HSV', (hue, saturation, value)).convert('RGB')


def _hue(image, rng):
    # The circle has 256 steps.
    turn = round(rng.uniform(-_HUE_DEGREES, _HUE_DEGREES) / 360 * 256)
    hue, saturation, value = image.convert('HSV').split()
    hue = hue.point([(level + turn) % 256 for level in range(256)])
    return Image.merge('HSV', (hue, saturation, value)).convert('RGB')


def _lookup_table(levels):
    return numpy.clip(numpy.rint(levels), 0, 255).astype(int).tolist()
