from experiments.models.suppression import suppress
from experiments.overlap import overlaps

import numpy
import pytest


def one_after_the_other(boxes, threshold):
    """The greedy algorithm as it is told: a box is kept if no better one that is kept overlaps."""
    kept = []
    for index in range(len(boxes)):
        overlap = overlaps(boxes[index : index + 1], boxes[kept])
        if not (overlap > threshold).any():
            kept.append(index)
    return kept


def test_of_two_that_overlap_the_better_is_kept():
    # 9 of 11 columns are shared: 0.82; the third box is elsewhere.
    boxes = numpy.array([[0, 0, 10, 10], [0, 1, 10, 11], [50, 50, 60, 60]], float)
    assert suppress(boxes, 0.45).tolist() == [True, False, True]


def test_a_box_that_is_left_out_suppresses_nothing():
    # Neighbours are 4 columns apart and share 6 of 14: 0.43. Of four in a row the first leaves out
    # the second, so the third stays and leaves out the fourth.
    boxes = numpy.array([[0, 4 * i, 10, 4 * i + 10] for i in range(4)], float)
    assert suppress(boxes, 0.4).tolist() == [True, False, True, False]


def test_an_overlap_of_the_threshold_does_not_suppress():
    boxes = numpy.array([[0, 0, 10, 10], [0, 0, 10, 5]], float)  # 0.5
    assert suppress(boxes, 0.5).all() and not suppress(boxes, 0.49).all()


@pytest.mark.parametrize('seed', range(5))
def test_it_keeps_what_the_greedy_algorithm_keeps(seed):
    rng = numpy.random.RandomState(seed)
    lower = rng.uniform(0, 60, (300, 2))
    boxes = numpy.concatenate([lower, lower + rng.uniform(5, 40, (300, 2))], axis=1)
    kept = suppress(boxes, 0.3)
    assert 10 < kept.sum() < 150
    assert numpy.flatnonzero(kept).tolist() == one_after_the_other(boxes, 0.3)


def test_a_long_chain_of_overlaps_is_followed_to_its_end():
    boxes = numpy.array([[0, i, 10, i + 2] for i in range(101)], float)  # neighbours share 1 of 3
    assert suppress(boxes, 0.3).tolist() == [i % 2 == 0 for i in range(101)]


def test_no_boxes_are_no_trouble():
    assert suppress(numpy.empty((0, 4)), 0.45).shape == (0,)
