"""ImageNet: random sized crop and flip to train with, the middle to test with; 224x224 by default.

As in Goyal et al. 2017 (section 5.1).
"""

import dataclasses

from experiments.data.augmentation.center_crop import center_crop
from experiments.data.augmentation.flip import flip, tossed
from experiments.data.augmentation.normalization import Normalization
from experiments.data.augmentation.sized_crop import sized_crop

import numpy


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """From a stored image to one to train with.

    Attributes:
        size (int): Side of the result.
        normalization (Normalization): The last step.
    """

    size: int
    normalization: Normalization

    def __call__(self, example, rng):
        """Augments a pair of a Pillow image and class."""
        image, label = example
        image = self.normalization(sized_crop(image, self.size, rng))
        if tossed(rng):
            image = numpy.ascontiguousarray(flip(image))
        return image, label


@dataclasses.dataclass(frozen=True, eq=False)
class Test:
    """From a stored image to one to test with: the shorter side to 256, the middle 224x224.

    Attributes:
        size (int): Side of the result; the shorter side keeps its proportion to it, 256 : 224.
        normalization (Normalization): The last step.
    """

    size: int
    normalization: Normalization

    def __call__(self, example):
        """Crops a pair of a Pillow image and class."""
        image, label = example
        shorter = round(self.size * 256 / 224)
        return self.normalization(center_crop(image, shorter, self.size)), label
