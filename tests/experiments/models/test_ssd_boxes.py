import pickle

from experiments.data.transforms import box_iou
from experiments.models.ssd_boxes import (
    GRIDS_300,
    GRIDS_512,
    BoxMatcher,
    Grid,
    corners,
    decode,
    default_boxes,
    detect,
    encode,
    non_maximum_suppression,
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


# Four boxes of 10x10 in a row, from x = 0, 10, 20 and 30.
ROW = numpy.array([[5, 5 + 10 * i, 10, 10] for i in range(4)], numpy.float32)
IMAGE = object()


def match(objects, labels, defaults=ROW):
    objects = numpy.array(objects, numpy.float32).reshape(-1, 4)
    image, locs, targets = BoxMatcher(defaults)((IMAGE, objects, numpy.array(labels, numpy.int32)))
    assert image is IMAGE
    assert locs.shape == defaults.shape and locs.dtype == numpy.float32
    assert targets.shape == (len(defaults),) and targets.dtype == numpy.int32
    return locs, targets


def test_an_object_is_matched_to_every_box_that_overlaps_by_more_than_a_half():
    # From x = 2 to 18, 10 high: with the first two boxes it shares 8 of 18 columns, 0.44; with
    # both stretched to 16 wide around x = 8 and 12 it shares 14 of 18, 0.78, and 14 of 18.
    defaults = numpy.array([[5, 5, 10, 10], [5, 15, 10, 10], [5, 8, 10, 16], [5, 12, 10, 16]], 'f')
    locs, targets = match([[0, 2, 10, 18]], [6], defaults)
    assert targets.tolist() == [0, 0, 7, 7]
    assert not locs[:2].any()
    expected = encode(numpy.array([[0, 2, 10, 18]], 'f'), defaults[2:])
    numpy.testing.assert_array_equal(locs[2:], expected)


def test_an_object_that_overlaps_with_none_enough_gets_the_best_box():
    # 4x4 within the third box: an overlap of 16 / 100.
    _, targets = match([[1, 21, 5, 25]], [0])
    assert targets.tolist() == [0, 0, 1, 0]


def test_an_overlap_of_exactly_a_half_is_no_match():
    # The object is the left half of the first box and nothing else; the best box is another, with
    # which it coincides.
    defaults = numpy.array([[5, 5, 10, 10], [5, 2.5, 10, 5]], numpy.float32)
    _, targets = match([[0, 0, 10, 5]], [0], defaults)
    assert targets.tolist() == [0, 1]


def test_every_object_gets_a_box_of_its_own_the_best_pair_first():
    # Both lie in the second box, with which they overlap by 0.8 and 0.3; the second object is left
    # with the third box, of which it has one column: 10 / (30 + 100 - 10) = 0.08.
    _, targets = match([[0, 10, 10, 18], [0, 18, 10, 21]], [0, 1])
    assert targets.tolist() == [0, 1, 2, 0]


def test_a_box_that_matches_two_objects_belongs_to_the_nearer():
    # Both objects overlap with the wide box by more than a half, and each has a best box of its
    # own. The wide one, 10x20: 12 / 20 = 0.6 of the first object, 15 / 20 of the second.
    defaults = numpy.array([[5, 6, 10, 12], [5, 12.5, 10, 15], [5, 10, 10, 20]], numpy.float32)
    _, targets = match([[0, 0, 10, 12], [0, 5, 10, 20]], [0, 1], defaults)
    assert targets.tolist() == [1, 2, 2]


def test_an_image_without_objects_is_all_background():
    locs, targets = match([], [])
    assert not targets.any() and not locs.any()


def test_difficult_objects_are_trained_on():
    example = (IMAGE, ROW[:1], numpy.array([0], numpy.int32), numpy.array([True]))
    with_difficult = BoxMatcher(ROW)((example[0], numpy.array([[0, 0, 10, 10]], 'f'), *example[2:]))
    assert len(with_difficult) == 3 and with_difficult[2].tolist() == [1, 0, 0, 0]


def test_an_object_without_area_is_an_error_that_shows_it():
    with pytest.raises(ValueError, match=r'height and width, given \[\[1.0, 5.0, 3.0, 5.0\]\]'):
        match([[1, 5, 3, 5]], [0])


def test_what_is_matched_decodes_to_the_objects_and_survives_pickling():
    rng = numpy.random.RandomState(0)
    defaults = default_boxes(GRIDS_300)
    lower = rng.uniform(0, 200, (7, 2))
    objects = numpy.concatenate([lower, lower + rng.uniform(10, 90, (7, 2))], 1).astype('f')
    matcher = pickle.loads(pickle.dumps(BoxMatcher(defaults)))  # as a MultiprocessIterator does
    _, locs, targets = matcher((IMAGE, objects, numpy.arange(7, dtype=numpy.int32)))
    found = targets > 0
    assert set(targets[found]) == set(range(1, 8))
    decoded = decode(locs[found], defaults[found])
    numpy.testing.assert_allclose(decoded, objects[targets[found] - 1], atol=1e-3)


# Boxes of 20x20 around (10, 10), (10, 12), (50, 50) and, half outside, (100, 50).
DEFAULTS = numpy.array(
    [[10, 10, 20, 20], [10, 12, 20, 20], [50, 50, 20, 20], [100, 50, 20, 20]], numpy.float32
)


def logits(*probabilities):
    return numpy.log(numpy.array(probabilities, numpy.float32))


def test_the_detections_of_a_case_worked_out_by_hand():
    confs = logits([0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.2, 0.795, 0.005], [0.04, 0.01, 0.95])
    found = detect(numpy.zeros((4, 4), numpy.float32), confs, DEFAULTS, 100)
    # Class 0: the first box overlaps by 18 / 22 = 0.82 with the second, which is better; the fourth
    # has 0.01, which is not over the threshold. Class 1: the fourth, which is clipped to the image,
    # the first and the second: the same score, one suppresses the other; the third has 0.005.
    assert found.labels.tolist() == [1, 0, 0, 1]
    numpy.testing.assert_allclose(found.scores, [0.95, 0.8, 0.795, 0.1], rtol=1e-5)
    assert found.boxes.tolist() == [
        [90, 40, 100, 60],
        [0, 2, 20, 22],
        [40, 40, 60, 60],
        [0, 0, 20, 20],
    ]
    assert found.boxes.dtype == found.scores.dtype == numpy.float32
    assert found.labels.dtype == numpy.int32


def test_boxes_are_moved_before_they_are_compared():
    # The second is moved by 5 * 0.1 of its width, 10 pixels: from x = 2..22 to 12..32. With the
    # first it shares 8 of 32 columns, 0.25: both stay.
    locs = numpy.zeros((4, 4), numpy.float32)
    locs[1, 1] = 5
    found = detect(locs, logits(*[[0.4, 0.6]] * 4), DEFAULTS, 300)
    assert [0, 12, 20, 32] in found.boxes.tolist() and len(found.boxes) == 4


def test_all_that_suppression_leaves_are_detections():
    defaults = default_boxes(GRIDS_300)
    rng = numpy.random.RandomState(0)
    confs = rng.randn(len(defaults), 21).astype(numpy.float32)
    found = detect(rng.randn(*defaults.shape).astype('f'), confs, defaults, 300)
    # Of each of 20 classes up to 400; Caffe keeps 200 of an image.
    assert 1000 < len(found.boxes) < 8000
    assert (numpy.diff(found.scores) <= 0).all()
    assert found.boxes.min() >= 0 and found.boxes.max() <= 300


def test_nothing_is_found_where_all_is_background():
    found = detect(numpy.zeros((4, 4), 'f'), logits(*[[0.995, 0.005]] * 4), DEFAULTS, 300)
    assert found.boxes.shape == (0, 4) and found.labels.shape == found.scores.shape == (0,)


@pytest.mark.parametrize('bad', [numpy.nan, numpy.inf])
def test_a_diverged_network_finds_nothing_and_stops_nothing(bad):
    confs = numpy.full((4, 3), bad, numpy.float16)
    found = detect(numpy.full((4, 4), bad, numpy.float16), confs, DEFAULTS, 300)
    assert len(found.scores) == 0


def one_after_the_other(boxes, threshold):
    """The greedy algorithm as it is told: a box is kept if no better one that is kept overlaps."""
    kept = []
    for index in range(len(boxes)):
        iou = box_iou(boxes[index : index + 1], boxes[kept])
        if not (iou > threshold).any():
            kept.append(index)
    return kept


def test_of_two_that_overlap_the_better_is_kept():
    # 9 of 11 columns are shared: 0.82; the third box is elsewhere.
    boxes = numpy.array([[0, 0, 10, 10], [0, 1, 10, 11], [50, 50, 60, 60]], float)
    assert non_maximum_suppression(boxes, 0.45).tolist() == [True, False, True]


def test_a_box_that_is_left_out_suppresses_nothing():
    # Neighbours are 4 columns apart and share 6 of 14: 0.43. Of four in a row the first leaves out
    # the second, so the third stays and leaves out the fourth.
    boxes = numpy.array([[0, 4 * i, 10, 4 * i + 10] for i in range(4)], float)
    assert non_maximum_suppression(boxes, 0.4).tolist() == [True, False, True, False]


def test_an_overlap_of_the_threshold_does_not_suppress():
    boxes = numpy.array([[0, 0, 10, 10], [0, 0, 10, 5]], float)  # 0.5
    assert (
        non_maximum_suppression(boxes, 0.5).all() and not non_maximum_suppression(boxes, 0.49).all()
    )


@pytest.mark.parametrize('seed', range(5))
def test_it_keeps_what_the_greedy_algorithm_keeps(seed):
    rng = numpy.random.RandomState(seed)
    lower = rng.uniform(0, 60, (300, 2))
    boxes = numpy.concatenate([lower, lower + rng.uniform(5, 40, (300, 2))], axis=1)
    kept = non_maximum_suppression(boxes, 0.3)
    assert 10 < kept.sum() < 150
    assert numpy.flatnonzero(kept).tolist() == one_after_the_other(boxes, 0.3)


def test_a_long_chain_of_overlaps_is_followed_to_its_end():
    boxes = numpy.array([[0, i, 10, i + 2] for i in range(101)], float)  # neighbours share 1 of 3
    assert non_maximum_suppression(boxes, 0.3).tolist() == [i % 2 == 0 for i in range(101)]


def test_no_boxes_are_no_trouble():
    assert non_maximum_suppression(numpy.empty((0, 4)), 0.45).shape == (0,)
