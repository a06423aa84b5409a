"""CamVid: flipped and, if asked for, cropped; the labels follow the pixels."""

import dataclasses
from typing import Optional

from experiments.data.augmentation.flip import flip, tossed
from experiments.data.augmentation.normalization import Normalization

import numpy


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """From a stored example to one to train with.

    Attributes:
        normalization (Normalization): The first step.
        crop (tuple of int): Height and width of a random crop; ``None`` is the whole image.
        flip (bool): Whether to flip half of the examples.
    """

    normalization: Normalization
    crop: Optional[tuple] = None
    flip: bool = True

    def __call__(self, example, rng):
        """Augments a pair of a Pillow image and the class of each pixel."""
        image, labels = self.normalization(example[0]), example[1]
        if self.crop is not None:
            height, width = self.crop
            top = rng.integers(0, labels.shape[0] - height, endpoint=True)
            left = rng.integers(0, labels.shape[1] - width, endpoint=True)
            window = numpy.s_[..., top : top + height, left : left + width]
            image, labels = image[window], labels[window]
        if self.flip and tossed(rng):
            image, labels = flip(image), flip(labels)
        return numpy.ascontiguousarray(image), numpy.ascontiguousarray(labels)


@dataclasses.dataclass(frozen=True, eq=False)
class Test:
    """From a stored example to one to test with.

    Attributes:
        normalization (Normalization): All that is done.
    """

    normalization: Normalization

    def __call__(self, example):
        """Normalizes a pair of a Pillow image and the class of each pixel."""
        image, labels = example
        return self.normalization(image), labels
