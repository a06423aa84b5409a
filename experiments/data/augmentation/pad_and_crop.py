"""Shifting an image a little: it is padded, and cropped to its size again."""

import numpy


def pad_and_crop(image, padding, rng):
    """Shifts an image by at most ``padding`` pixels each way; what comes in is zero.

    Zero is the mean colour of a normalized image.

    Args:
        image (numpy.ndarray): Of shape (channels, height, width).
        padding (int): Pixels on each side.
        rng (numpy.random.Generator): Draws the shift.

    Returns:
        numpy.ndarray: The image, of the same shape and dtype.
    """
    _, height, width = image.shape
    padded = numpy.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    top, left = rng.integers(0, 2 * padding, size=2, endpoint=True)
    return padded[:, top : top + height, left : left + width]
