"""CIFAR as in He et al. 2016 (section 4.2): padded by 4, cropped to 32x32, flipped."""

import dataclasses

from experiments.data.augmentation.flip import flip, tossed
from experiments.data.augmentation.normalization import Normalization
from experiments.data.augmentation.pad_and_crop import pad_and_crop

import numpy

_PADDING = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """From a stored image to one to train with.

    Attributes:
        normalization (Normalization): It comes first, so that the padding has the mean colour.
        crop (bool): Whether to crop and flip at all.
    """

    normalization: Normalization
    crop: bool = True

    def __call__(self, example, rng):
        """Augments a pair of image (uint8) and class."""
        image, label = example
        image = self.normalization(image)
        if self.crop:
            image = pad_and_crop(image, _PADDING, rng)
            if tossed(rng):
                image = flip(image)
        return numpy.ascontiguousarray(image), label


@dataclasses.dataclass(frozen=True, eq=False)
class Test:
    """From a stored image to one to test with.

    Attributes:
        normalization (Normalization): All that is done.
    """

    normalization: Normalization

    def __call__(self, example):
        """Normalizes a pair of image (uint8) and class."""
        image, label = example
        return self.normalization(image), label
