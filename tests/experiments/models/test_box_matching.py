import pickle

from experiments.models.box_coding import decode, encode
from experiments.models.box_matching import BoxMatcher
from experiments.models.default_boxes import GRIDS_300, default_boxes

import numpy
import pytest

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
