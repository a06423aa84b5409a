from experiments.data.boxes import box_iou
from experiments.models.default_boxes import GRIDS_300, default_boxes
from experiments.models.detections import detect, non_maximum_suppression

import numpy
import pytest

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


def test_the_best_200_are_left():
    defaults = default_boxes(GRIDS_300)
    rng = numpy.random.RandomState(0)
    confs = rng.randn(len(defaults), 21).astype(numpy.float32)
    found = detect(rng.randn(*defaults.shape).astype('f'), confs, defaults, 300)
    assert found.boxes.shape == (200, 4)
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
