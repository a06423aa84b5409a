"""Photometric distortion, as SSD is trained with (Liu et al. 2016, section 2.2, after Howard 2013).

The ranges are those of the authors' released configuration. Each distortion happens half of the
times, but for the swap of channels, which that configuration turns off.
"""

import dataclasses

from experiments.data.augmentation.flip import tossed

import numpy
from PIL import Image

_BRIGHTNESS = 32.0
_CONTRAST = (0.5, 1.5)
_SATURATION = (0.5, 1.5)
_HUE_DEGREES = 18.0
_LEVELS = numpy.arange(256)


@dataclasses.dataclass(frozen=True)
class Photometric:
    """Changes brightness, contrast, saturation and hue.

    Attributes:
        swap_rate (float): How often the channels change places.
    """

    swap_rate: float = 0.0

    def __call__(self, image, rng):
        """Distorts an image.

        Args:
            image (PIL.Image.Image): In mode RGB.
            rng (numpy.random.Generator): Draws what happens, and how much of it.
        """
        image = _brightness(image, rng)
        if tossed(rng):
            image = _hue(_saturation(_contrast(image, rng), rng), rng)
        else:
            image = _contrast(_hue(_saturation(image, rng), rng), rng)
        if rng.random() < self.swap_rate:
            channels = image.split()
            image = Image.merge('RGB', [channels[i] for i in rng.permutation(3)])
        return image


def _brightness(image, rng):
    if not tossed(rng):
        return image
    return image.point(_table(_LEVELS + rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)) * 3)


def _contrast(image, rng):
    if not tossed(rng):
        return image
    return image.point(_table(_LEVELS * rng.uniform(*_CONTRAST)) * 3)


def _saturation(image, rng):
    if not tossed(rng):
        return image
    hue, saturation, value = image.convert('HSV').split()
    saturation = saturation.point(_table(_LEVELS * rng.uniform(*_SATURATION)))
    return Image.merge('HSV', (hue, saturation, value)).convert('RGB')


def _hue(image, rng):
    if not tossed(rng):
        return image
    # The circle has 256 steps.
    turn = round(rng.uniform(-_HUE_DEGREES, _HUE_DEGREES) / 360 * 256)
    hue, saturation, value = image.convert('HSV').split()
    hue = hue.point([(level + turn) % 256 for level in range(256)])
    return Image.merge('HSV', (hue, saturation, value)).convert('RGB')


def _table(levels):
    return numpy.clip(numpy.rint(levels), 0, 255).astype(int).tolist()
