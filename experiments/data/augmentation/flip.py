"""Mirroring left and right."""

import numpy


def flip(image):
    """Returns a mirrored view.

    Args:
        image (numpy.ndarray): Of any dtype; its last axis is the horizontal one.
    """
    return image[..., ::-1]


def flip_boxes(boxes, width):
    """Returns the boxes of a mirrored image.

    Args:
        boxes (numpy.ndarray): Of shape (n, 4).
        width (int): Of the image.
    """
    y_min, x_min, y_max, x_max = boxes.T
    return numpy.stack([y_min, width - x_max, y_max, width - x_min], axis=1)


def tossed(rng):
    """Returns True half of the times."""
    return rng.random() < 0.5
