"""The default boxes of SSD, at each position of each of its feature maps, and boxes coded by them.

Liu et al. 2016 (arXiv 1512.02325), section 2.2. The numbers are those of the authors' released
models, which differ in places from the formula of the paper: ``examples/ssd/ssd_pascal.py`` and
``ssd_pascal_512.py`` in the ``ssd`` branch of github.com/weiliu89/caffe. The boxes are not clipped
to the image there, nor are they here.

A default box is (y, x, h, w) with (y, x) its centre, any other box (y_min, x_min, y_max, x_max),
all in pixels.
"""

import dataclasses
import math

import numpy

# What the offsets of the centre and of the logarithms of height and width are divided by, so that
# all four have about the same variance.
_VARIANCES = (0.1, 0.2)


@dataclasses.dataclass(frozen=True)
class Grid:
    """The default boxes of one feature map; all lengths in pixels of the image.

    Attributes:
        cells (int): Height and width of the feature map.
        step (int): From one cell's centre to the next.
        size (float): Side of the small square box.
        next_size (float): The large square's side is the geometric mean of this and ``size``.
        ratios (tuple of int): Aspect ratios r; there is a box of ratio r and one of 1 / r for each,
            with the area of the small square.
    """

    cells: int
    step: int
    size: float
    next_size: float
    ratios: tuple

    @property
    def boxes_per_cell(self):
        """int: How many boxes have one centre."""
        return 2 + 2 * len(self.ratios)

    def boxes(self):
        """Returns the boxes of all cells, row by row.

        Returns:
            numpy.ndarray: (cells * cells * boxes_per_cell, 4) in float32, each (y, x, h, w).
        """
        large = math.sqrt(self.size * self.next_size)
        shapes = [(self.size, self.size), (large, large)]
        for ratio in self.ratios:
            long, short = self.size * math.sqrt(ratio), self.size / math.sqrt(ratio)
            shapes += [(short, long), (long, short)]
        centres = (numpy.arange(self.cells) + 0.5) * self.step
        boxes = numpy.empty((self.cells, self.cells, len(shapes), 4), numpy.float32)
        boxes[..., 0] = centres[:, None, None]
        boxes[..., 1] = centres[None, :, None]
        boxes[..., 2:] = shapes
        return boxes.reshape(-1, 4)


# Of an image of 300x300: conv4_3, fc7, conv6_2, conv7_2, conv8_2, conv9_2.
GRIDS_300 = (
    Grid(38, 8, 30.0, 60.0, (2,)),
    Grid(19, 16, 60.0, 111.0, (2, 3)),
    Grid(10, 32, 111.0, 162.0, (2, 3)),
    Grid(5, 64, 162.0, 213.0, (2, 3)),
    Grid(3, 100, 213.0, 264.0, (2,)),
    Grid(1, 300, 264.0, 315.0, (2,)),
)
# Of an image of 512x512: the same, and conv10_2.
GRIDS_512 = (
    Grid(64, 8, 35.84, 76.8, (2,)),
    Grid(32, 16, 76.8, 153.6, (2, 3)),
    Grid(16, 32, 153.6, 230.4, (2, 3)),
    Grid(8, 64, 230.4, 307.2, (2, 3)),
    Grid(4, 128, 307.2, 384.0, (2, 3)),
    Grid(2, 256, 384.0, 460.8, (2,)),
    Grid(1, 512, 460.8, 537.6, (2,)),
)


def default_boxes(grids):
    """Returns the boxes of several feature maps, one map after the other.

    Args:
        grids (iterable of Grid): The feature maps.

    Returns:
        numpy.ndarray: (boxes, 4) in float32, each (y, x, h, w).
    """
    return numpy.concatenate([grid.boxes() for grid in grids])


def corners(centred):
    """Returns (y_min, x_min, y_max, x_max) of boxes (..., 4) given as (y, x, h, w)."""
    centre, half = centred[..., :2], centred[..., 2:] / 2
    return numpy.concatenate([centre - half, centre + half], axis=-1)


def encode(boxes, default_boxes):
    """Encodes boxes relative to default boxes, one each (Liu et al. 2016, equation 2).

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
