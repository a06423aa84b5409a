"""SSD's training examples (Liu et al. 2016, sections 2.2 and 3.6).

In this order, the one of the authors' code: photometric distortion, expansion, constrained crop,
resizing, flip. Where the image is expanded, the mean colour fills the rest.
"""

import dataclasses

from experiments.data.augmentation.constrained_crop import constrained_crop
from experiments.data.augmentation.expand import expand
from experiments.data.augmentation.flip import flip, flip_boxes, tossed
from experiments.data.augmentation.normalization import Normalization
from experiments.data.augmentation.photometric import Photometric
from experiments.data.augmentation.resize import resize

import numpy

# The mean colour that VGG-16 was trained with, which SSD starts from.
MEAN = (123, 117, 104)


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """From a stored example to one to train with.

    Attributes:
        size (int): Side of the result.
        normalization (Normalization): The last step.
        photometric (Photometric): The first.
    """

    size: int
    normalization: Normalization
    photometric: Photometric = Photometric()

    def __call__(self, example, rng):
        """Augments a Pillow image with boxes and classes; what else an example has is left out."""
        image, boxes, labels = example[:3]
        image = self.photometric(image, rng)
        image, boxes = expand(image, boxes, MEAN, rng)
        image, boxes, kept = constrained_crop(image, boxes, rng)
        image, boxes = resize(image, boxes, self.size, rng)
        image = self.normalization(image)
        if tossed(rng):
            image, boxes = numpy.ascontiguousarray(flip(image)), flip_boxes(boxes, self.size)
        return image, boxes, labels[kept]


@dataclasses.dataclass(frozen=True, eq=False)
class Plain:
    """From a stored example to one that is only resized and normalized.

    Attributes:
        size (int): Side of the result.
        normalization (Normalization): The last step.
    """

    size: int
    normalization: Normalization

    def __call__(self, example, rng=None):
        """Resizes a Pillow image with boxes; the rest of the example stays."""
        image, boxes, *others = example
        image, boxes = resize(image, boxes, self.size)
        return (self.normalization(image), boxes, *others)
