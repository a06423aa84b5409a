from experiments.tasks import miou

import numpy
import pytest

LABELS = numpy.array([[0, 0, 0, 1], [1, 1, -1, -1]])
PREDICTED = numpy.array([[0, 0, 1, 1], [1, 0, 2, 0]])
# Rows: what a pixel is. Of three pixels of class 0 two are taken for 0, one for 1; of three of
# class 1 two for 1, one for 0. Two are void.
COUNTS = numpy.array([[2, 1, 0], [1, 2, 0], [0, 0, 0]])


def test_the_confusion_matrix_counts_all_pixels_but_the_void_ones():
    counts = miou.confusion(PREDICTED, LABELS, 3)
    assert counts.tolist() == COUNTS.tolist() and counts.dtype == numpy.int64


def test_the_metrics_of_a_case_worked_out_by_hand():
    # Intersections 2 and 2; unions 3 + 3 - 2 = 4 and 3 + 3 - 2 = 4. Class 2 is nowhere.
    numpy.testing.assert_allclose(miou.ious(COUNTS), [0.5, 0.5, numpy.nan])
    assert miou.miou(COUNTS) == 0.5
    assert miou.pixel_accuracy(COUNTS) == pytest.approx(4 / 6)
    assert miou.class_accuracy(COUNTS) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_classes_of_different_sizes_count_the_same_in_the_means():
    # 90 pixels of class 0, 80 of them right; 10 of class 1, all right.
    counts = numpy.array([[80, 10], [0, 10]])
    assert miou.miou(counts) == pytest.approx((80 / 90 + 10 / 20) / 2)
    assert miou.class_accuracy(counts) == pytest.approx((80 / 90 + 1) / 2)
    assert miou.pixel_accuracy(counts) == pytest.approx(0.9)


def test_a_class_that_is_only_predicted_has_an_iou_of_zero_and_no_accuracy():
    counts = numpy.array([[3, 1], [0, 0]])
    numpy.testing.assert_allclose(miou.ious(counts), [0.75, 0])
    assert miou.class_accuracy(counts) == 0.75


def test_of_nothing_but_void_there_is_no_metric():
    counts = miou.confusion(numpy.array([1, 0]), numpy.array([-1, -1]), 2)
    assert not counts.any()
    for metric in (miou.miou, miou.pixel_accuracy, miou.class_accuracy):
        assert numpy.isnan(metric(counts))


@pytest.mark.parametrize('label', [3, -2, 255])
def test_a_label_that_is_no_class_is_an_error(label):
    with pytest.raises(ValueError, match=f'labels must be 0 to 2, or -1 for void; given .*{label}'):
        miou.confusion(numpy.array([0, 0]), numpy.array([1, label]), 3)
