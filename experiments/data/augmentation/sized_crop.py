"""Random sized crop (Szegedy et al. 2015, section 6): a patch of random area and aspect ratio."""

import math

from PIL import Image

_AREA = (0.08, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_TRIALS = 10


def patch(width, height, rng):
    """Draws a patch of an image.

    Its area is 8 to 100 % of the image's, uniformly; width : height is 3/4 to 4/3, uniformly in the
    logarithm; its place is uniform. If ten draws do not fit, it is the largest patch in the middle
    whose aspect ratio is allowed.

    Args:
        width (int): Of the image.
        height (int): Of the image.
        rng (numpy.random.Generator): What draws.

    Returns:
        tuple of int: Left, top, right, bottom.
    """
    for _ in range(_TRIALS):
        area = width * height * rng.uniform(*_AREA)
        aspect = math.exp(rng.uniform(*map(math.log, _ASPECT)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left = int(rng.integers(0, width - w, endpoint=True))
            top = int(rng.integers(0, height - h, endpoint=True))
            return left, top, left + w, top + h
    w = max(1, min(width, round(height * _ASPECT[1])))
    h = max(1, min(height, round(width / _ASPECT[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def sized_crop(image, size, rng):
    """Returns a random patch of an image, resized to a square.

    Args:
        image (PIL.Image.Image): The image.
        size (int): Side of the result.
        rng (numpy.random.Generator): Draws the patch.
    """
    return image.resize((size, size), Image.Resampling.BILINEAR, box=patch(*image.size, rng))
