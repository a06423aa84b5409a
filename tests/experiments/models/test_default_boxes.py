from experiments.models.default_boxes import (
    GRIDS_300,
    GRIDS_512,
    Grid,
    corners,
    decode,
    default_boxes,
    encode,
)

import numpy
import pytest


@pytest.mark.parametrize('grids, boxes', [(GRIDS_300, 8732), (GRIDS_512, 24564)])
def test_there_are_as_many_boxes_as_in_the_paper(grids, boxes):
    assert default_boxes(grids).shape == (boxes, 4)
    assert sum(grid.cells**2 * grid.boxes_per_cell for grid in grids) == boxes


def test_the_boxes_of_a_cell_are_two_squares_and_two_of_each_ratio():
    # Side 4 and 9: the large square has sqrt(4 * 9) = 6. Of ratio 4 and area 16: 8 x 2.
    boxes = Grid(cells=2, step=10, size=4.0, next_size=9.0, ratios=(4,)).boxes()
    shapes = [[4, 4], [6, 6], [2, 8], [8, 2]]  # height, width
    assert boxes[:4].tolist() == [[5, 5, *shape] for shape in shapes]
    assert boxes[:, :2].tolist() == sum(
        ([[y, x]] * 4 for y in (5, 15) for x in (5, 15)), []
    )  # row by row
    assert boxes.dtype == numpy.float32


def test_the_last_box_of_ssd300_is_centred_and_half_as_wide_as_high():
    # conv9_2 has one cell of 300x300: size 264, ratio 1/2, so 264 * sqrt(2) by 264 / sqrt(2).
    last = default_boxes(GRIDS_300)[-1]
    numpy.testing.assert_allclose(last, [150, 150, 373.3524, 186.6762], rtol=1e-6)


@pytest.mark.parametrize('grids, size', [(GRIDS_300, 300), (GRIDS_512, 512)])
def test_each_feature_map_begins_where_the_one_before_it_ends(grids, size):
    assert [grid.next_size for grid in grids[:-1]] == [grid.size for grid in grids[1:]]
    # Cells cover the image, up to less than one of them.
    assert all(abs(grid.cells * grid.step - size) < grid.step for grid in grids)


def test_corners_are_half_a_side_from_the_centre():
    assert corners(numpy.array([[10.0, 20.0, 4.0, 6.0]])).tolist() == [[8, 17, 12, 23]]


def test_an_encoded_box_is_its_offset_and_its_growth():
    # A default box around (10, 20), 4 high and 8 wide; an object around (11, 18), 8 high and 8
    # wide. Offset: +1 / 4 and -2 / 8, over 0.1. Growth: ln(8 / 4) and ln(8 / 8), over 0.2.
    default = numpy.array([[10, 20, 4, 8]], numpy.float32)
    boxes = numpy.array([[7, 14, 15, 22]], numpy.float32)
    encoded = encode(boxes, default)
    assert encoded.dtype == numpy.float32
    numpy.testing.assert_allclose(encoded, [[2.5, -2.5, 3.4657359, 0]], rtol=1e-6)
    numpy.testing.assert_allclose(decode(encoded, default), boxes, rtol=1e-6)


def test_decoding_gives_back_what_was_encoded():
    rng = numpy.random.RandomState(0)
    defaults = default_boxes(GRIDS_300)
    lower = rng.uniform(0, 250, (len(defaults), 2))
    boxes = numpy.concatenate([lower, lower + rng.uniform(5, 50, lower.shape)], axis=1)
    boxes = boxes.astype(numpy.float32)
    decoded = decode(encode(boxes, defaults), defaults)
    # Numbers up to 300 pixels, and logarithms that are exponentiated again: a few float32 roundings
    # of 300 * 2^-24 each.
    numpy.testing.assert_allclose(decoded, boxes, rtol=0, atol=20 * 300 * 2**-24)


def test_nothing_encoded_is_the_default_box():
    defaults = default_boxes(GRIDS_300)
    decoded = decode(numpy.zeros_like(defaults), defaults)
    numpy.testing.assert_array_equal(decoded, corners(defaults))
