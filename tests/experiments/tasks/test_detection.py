from experiments.tasks.detection import TrainChain, hard_negatives, multibox_loss

import chainer
import numpy
import pytest


class Fixed(chainer.Chain):
    def forward(self, images):
        return self.locs, self.confs


def test_it_reports_the_loss_and_its_two_parts():
    # One positive, off by 1 in one coordinate: 1/2. All logits 0: log 2 for it and three others.
    model = Fixed()
    model.locs = chainer.Variable(numpy.array([[[1, 0, 0, 0]] + [[0] * 4] * 9], numpy.float32))
    model.confs = chainer.Variable(numpy.zeros((1, 10, 2), numpy.float32))
    chain = TrainChain(model)
    reporter = chainer.Reporter()
    reporter.add_observer('main', chain)
    observation = {}
    targets = numpy.array([[1] + [0] * 9], numpy.int32)
    with reporter.scope(observation):
        loss = chain(None, numpy.zeros((1, 10, 4), numpy.float32), targets)
    values = {key: float(value.array) for key, value in observation.items()}
    assert set(values) == {'main/loss', 'main/loss/loc', 'main/loss/conf'}
    assert values['main/loss/loc'] == 0.5
    numpy.testing.assert_allclose(values['main/loss/conf'], 4 * numpy.log(2), rtol=1e-6)
    assert (
        values['main/loss']
        == float(loss.array)
        == values['main/loss/loc'] + numpy.float32(values['main/loss/conf'])
    )


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
