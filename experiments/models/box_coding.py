"""Boxes as SSD's network gives them: relative to its default boxes.

Liu et al. 2016, equation 2, with the variances of the authors' released models.

A box is (y_min, x_min, y_max, x_max), a default box (y, x, h, w) with (y, x) its centre, both in
pixels.
"""

import numpy

# What the offsets of the centre and of the logarithms of height and width are divided by, so that
# all four have about the same variance.
_VARIANCES = (0.1, 0.2)


def corners(centred):
    """Returns (y_min, x_min, y_max, x_max) of boxes (..., 4) given as (y, x, h, w)."""
    centre, half = centred[..., :2], centred[..., 2:] / 2
    return numpy.concatenate([centre - half, centre + half], axis=-1)


def encode(boxes, default_boxes):
    """Encodes boxes relative to default boxes, one each.

    Args:
        boxes (numpy.ndarray): (..., 4), of positive height and width.
        default_boxes (numpy.ndarray): (..., 4).

    Returns:
        numpy.ndarray: (..., 4) in float32: vertical and horizontal offset of the centre, in heights
        and widths of the default box, and the logarithms of the ratios of heights and of widths,
        divided by their variances.
    """
    sides = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + sides / 2
    offset = (centre - default_boxes[..., :2]) / default_boxes[..., 2:]
    growth = numpy.log(sides / default_boxes[..., 2:])
    encoded = [offset / _VARIANCES[0], growth / _VARIANCES[1]]
    return numpy.concatenate(encoded, axis=-1).astype(numpy.float32, copy=False)


def decode(locs, default_boxes):
    """Inverse of :func:`encode`.

    Args:
        locs (numpy.ndarray): (..., 4) in float32, encoded.
        default_boxes (numpy.ndarray): (..., 4).

    Returns:
        numpy.ndarray: (..., 4), boxes.
    """
    sides = default_boxes[..., 2:]
    centre = default_boxes[..., :2] + locs[..., :2] * _VARIANCES[0] * sides
    sides = numpy.exp(locs[..., 2:] * _VARIANCES[1]) * sides
    return corners(numpy.concatenate([centre, sides], axis=-1))
