import pickle

from experiments.models.default_boxes import GRIDS_300, decode, default_boxes, encode
from experiments.models.multibox_loss import BoxMatcher, hard_negatives, multibox_loss

import chainer
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


def arrays(targets, classes=2):
    targets = numpy.array(targets, numpy.int32)
    locs = numpy.zeros((*targets.shape, 4), numpy.float32)
    return locs, numpy.zeros((*targets.shape, classes), numpy.float32), locs.copy(), targets


def test_the_loss_of_a_case_worked_out_by_hand():
    # One image, six boxes, the first an object; two classes, logits (a, 0) for the background.
    locs, confs, target_locs, targets = arrays([[1, 0, 0, 0, 0, 0]])
    confs[0, :, 0] = [0, 3, 2, 1, -1, -2]
    locs[0, 0] = [0.5, -2, 0, 1]
    locs[0, 1:] = 9  # where the background is does not matter
    loc, conf = multibox_loss(locs, confs, target_locs, targets)
    # Smooth L1: 0.5^2 / 2 + (2 - 1/2) + 0 + 1^2 / 2 = 2.125, of one positive.
    assert loc.array == pytest.approx(2.125)
    # Of the five negatives the three whose background logit is lowest: -2, -1 and 1, each with
    # -log(e^a / (e^a + 1)) = log(1 + e^-a); the positive has -log(1 / 2).
    expected = sum(numpy.log1p(numpy.exp(-a)) for a in (-2, -1, 1)) + numpy.log(2)
    assert conf.array == pytest.approx(expected)


def test_it_is_divided_by_the_positives_of_the_batch():
    one = arrays([[1, 0, 0, 0]])
    # An image of one positive and one of three, all logits 0: log 2 for each of 1 + 3 and 3 + 5.
    locs, confs, target_locs, targets = arrays([[1, 0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0]])
    locs[0, 0, 0] = 2
    loc, conf = multibox_loss(locs, confs, target_locs, targets)
    assert loc.array == pytest.approx(1.5 / 4)
    assert conf.array == pytest.approx(12 * numpy.log(2) / 4)
    assert multibox_loss(*one)[1].array == pytest.approx(4 * numpy.log(2))


def test_a_batch_without_objects_has_no_loss_and_no_gradient():
    locs, confs, target_locs, targets = arrays([[0, 0, 0]])
    locs, confs = chainer.Variable(locs), chainer.Variable(confs)
    loc, conf = multibox_loss(locs, confs, target_locs, targets)
    (loc + conf).backward()
    assert loc.array == conf.array == 0
    assert not locs.grad.any() and not confs.grad.any()


def test_only_positives_and_mined_negatives_get_a_gradient():
    rng = numpy.random.RandomState(0)
    targets = (rng.rand(2, 50) < 0.1).astype(numpy.int32) * rng.randint(1, 4, (2, 50))
    locs, confs, target_locs, targets = arrays(targets, classes=4)
    confs = chainer.Variable(rng.randn(*confs.shape).astype(numpy.float32))
    locs = chainer.Variable(rng.randn(*locs.shape).astype(numpy.float32))
    loc, conf = multibox_loss(locs, confs, target_locs, targets)
    (loc + conf).backward()
    positives = (targets > 0).sum(axis=1)
    assert (positives > 0).all()
    assert (confs.grad.any(axis=2).sum(axis=1) == 4 * positives).all()
    assert confs.grad.any(axis=2)[targets > 0].all()
    assert (locs.grad.any(axis=2) == (targets > 0)).all()


def test_three_negatives_of_highest_loss_are_mined_for_each_positive_of_the_image():
    losses = numpy.array([[9, 1, 5, 2, 4, 3], [1, 2, 3, 4, 5, 6]], numpy.float32)
    positive = numpy.array([[True, False, False, False, False, False], [False] * 6])
    mined = hard_negatives(losses, positive)
    assert numpy.flatnonzero(mined[0]).tolist() == [2, 4, 5]
    assert not mined[1].any()  # of an image without objects, none


def test_all_negatives_are_mined_where_there_are_fewer_than_three_for_each_positive():
    positive = numpy.array([[True, True, False, False]])
    mined = hard_negatives(numpy.ones((1, 4), 'f'), positive)
    assert mined.tolist() == [[False, False, True, True]]


def test_of_equal_losses_no_more_than_three_are_mined():
    positive = numpy.zeros((1, 1000), bool)
    positive[0, 500] = True
    assert hard_negatives(numpy.full((1, 1000), 0.7, 'f'), positive).sum() == 3


def test_of_float16_outputs_the_loss_is_float32():
    locs, confs, target_locs, targets = arrays([[1] + [0] * 3999])
    # 12 times ln(2) / 1: the sum is exact enough in float32 where float16 would round to 2^-7.
    locs, confs = (chainer.Variable(array.astype(numpy.float16)) for array in (locs, confs))
    loc, conf = multibox_loss(locs, confs, target_locs, targets)
    assert loc.dtype == conf.dtype == numpy.float32
    assert conf.array == pytest.approx(4 * numpy.log(2), rel=1e-6)
    (loc + conf).backward()
    assert locs.grad.dtype == confs.grad.dtype == numpy.float16
