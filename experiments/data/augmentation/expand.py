"""Zooming out (Liu et al. 2016, section 3.6): the image on a canvas of up to 16 times its size."""

from experiments.data.augmentation.flip import tossed

import numpy
from PIL import Image

_LARGEST = 4.0


def expand(image, boxes, fill, rng):
    """Half of the times, places an image somewhere on a larger canvas.

    The canvas's sides are 1 to 4 times the image's.

    Args:
        image (PIL.Image.Image): The image.
        boxes (numpy.ndarray): Its boxes.
        fill (tuple of int): Colour of the canvas.
        rng (numpy.random.Generator): What draws.

    Returns:
        tuple: Image and boxes.
    """
    if not tossed(rng):
        return image, boxes
    width, height = image.size
    ratio = rng.uniform(1, _LARGEST)
    canvas = Image.new(image.mode, (int(width * ratio), int(height * ratio)), fill)
    left = int(rng.integers(0, canvas.width - width, endpoint=True))
    top = int(rng.integers(0, canvas.height - height, endpoint=True))
    canvas.paste(image, (left, top))
    return canvas, boxes + numpy.array([top, left, top, left], boxes.dtype)
