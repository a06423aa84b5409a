from experiments.models.default_boxes import GRIDS_300, default_boxes
from experiments.models.multibox_decoding import detections

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
    found = detections(numpy.zeros((4, 4), numpy.float32), confs, DEFAULTS, 100)
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
    found = detections(locs, logits(*[[0.4, 0.6]] * 4), DEFAULTS, 300)
    assert [0, 12, 20, 32] in found.boxes.tolist() and len(found.boxes) == 4


def test_the_best_200_are_left():
    defaults = default_boxes(GRIDS_300)
    rng = numpy.random.RandomState(0)
    confs = rng.randn(len(defaults), 21).astype(numpy.float32)
    found = detections(rng.randn(*defaults.shape).astype('f'), confs, defaults, 300)
    assert found.boxes.shape == (200, 4)
    assert (numpy.diff(found.scores) <= 0).all()
    assert found.boxes.min() >= 0 and found.boxes.max() <= 300


def test_nothing_is_found_where_all_is_background():
    found = detections(numpy.zeros((4, 4), 'f'), logits(*[[0.995, 0.005]] * 4), DEFAULTS, 300)
    assert found.boxes.shape == (0, 4) and found.labels.shape == found.scores.shape == (0,)


@pytest.mark.parametrize('bad', [numpy.nan, numpy.inf])
def test_a_diverged_network_finds_nothing_and_stops_nothing(bad):
    confs = numpy.full((4, 3), bad, numpy.float16)
    found = detections(numpy.full((4, 4), bad, numpy.float16), confs, DEFAULTS, 300)
    assert len(found.scores) == 0
