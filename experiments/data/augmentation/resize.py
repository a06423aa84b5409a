"""Resizing an image with its boxes to a square."""

import numpy
from PIL import Image

_FILTERS = (
    Image.Resampling.NEAREST,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.BOX,
    Image.Resampling.LANCZOS,
)


def resize(image, boxes, size, rng=None):
    """Resizes an image to a square, whatever its proportions.

    Args:
        image (PIL.Image.Image): The image.
        boxes (numpy.ndarray): Its boxes.
        size (int): Side of the result.
        rng (numpy.random.Generator): Draws the filter; without one it is bilinear.

    Returns:
        tuple: Image and boxes.
    """
    width, height = image.size
    chosen = Image.Resampling.BILINEAR if rng is None else _FILTERS[rng.integers(len(_FILTERS))]
    scale = numpy.array([size / height, size / width] * 2, boxes.dtype)
    return image.resize((size, size), chosen), boxes * scale
