from experiments.models.default_boxes import GRIDS_300, GRIDS_512, Grid, default_boxes

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
