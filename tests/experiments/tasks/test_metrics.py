from experiments.tasks import metrics

import numpy
import pytest
from chainer import functions

# The classes by decreasing logit: 2, 0, 3, 1 and 1, 3, 0, 2.
LOGITS = numpy.array([[3, 1, 4, 2], [2, 4, 1, 3]], numpy.float32)


@pytest.mark.parametrize('k, share', [(1, 0.5), (2, 0.5), (3, 1.0)])
def test_the_top_k_accuracies_of_a_case_worked_out_by_hand(k, share):
    # Class 2 is the first image's likeliest, class 0 the second's third.
    assert metrics.top_k_accuracy(LOGITS, numpy.array([2, 0]), k) == share


def test_top_1_is_chainers_accuracy_even_where_float16_makes_logits_equal():
    rng = numpy.random.RandomState(0)
    logits = rng.randint(0, 4, (1000, 10)).astype(numpy.float16)
    classes = rng.randint(0, 10, 1000)
    expected = functions.accuracy(logits.astype('f'), classes).array
    assert metrics.top_k_accuracy(logits, classes, 1) == pytest.approx(float(expected))


def test_of_equal_logits_only_k_are_among_the_top_k():
    logits = numpy.zeros((10, 10), numpy.float16)
    assert metrics.top_k_accuracy(logits, numpy.arange(10), 5) == 0.5


def test_a_network_that_diverged_is_never_right():
    logits = numpy.full((4, 10), numpy.nan, numpy.float32)
    assert metrics.top_k_accuracy(logits, numpy.zeros(4, int), 5) == 0


@pytest.mark.parametrize('k', [0, 4])
def test_top_k_takes_more_than_k_classes(k):
    with pytest.raises(ValueError, match=f'top {k} of 4 classes'):
        metrics.top_k_accuracy(LOGITS, numpy.array([2, 0]), k)


LABELS = numpy.array([[0, 0, 0, 1], [1, 1, -1, -1]])
PREDICTED = numpy.array([[0, 0, 1, 1], [1, 0, 2, 0]])
# Rows: what a pixel is. Of three pixels of class 0 two are taken for 0, one for 1; of three of
# class 1 two for 1, one for 0. Two are void.
COUNTS = numpy.array([[2, 1, 0], [1, 2, 0], [0, 0, 0]])


def test_the_confusion_matrix_counts_all_pixels_but_the_void_ones():
    counts = metrics.confusion_matrix(PREDICTED, LABELS, 3)
    assert counts.tolist() == COUNTS.tolist() and counts.dtype == numpy.int64


def test_the_metrics_of_a_case_worked_out_by_hand():
    # Intersections 2 and 2; unions 3 + 3 - 2 = 4 and 3 + 3 - 2 = 4. Class 2 is nowhere.
    numpy.testing.assert_allclose(metrics.ious(COUNTS), [0.5, 0.5, numpy.nan])
    assert metrics.miou(COUNTS) == 0.5
    assert metrics.pixel_accuracy(COUNTS) == pytest.approx(4 / 6)
    assert metrics.class_accuracy(COUNTS) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_classes_of_different_sizes_count_the_same_in_the_means():
    # 90 pixels of class 0, 80 of them right; 10 of class 1, all right.
    counts = numpy.array([[80, 10], [0, 10]])
    assert metrics.miou(counts) == pytest.approx((80 / 90 + 10 / 20) / 2)
    assert metrics.class_accuracy(counts) == pytest.approx((80 / 90 + 1) / 2)
    assert metrics.pixel_accuracy(counts) == pytest.approx(0.9)


def test_a_class_that_is_only_predicted_has_an_iou_of_zero_and_no_accuracy():
    counts = numpy.array([[3, 1], [0, 0]])
    numpy.testing.assert_allclose(metrics.ious(counts), [0.75, 0])
    assert metrics.class_accuracy(counts) == 0.75


def test_of_nothing_but_void_there_is_no_metric():
    counts = metrics.confusion_matrix(numpy.array([1, 0]), numpy.array([-1, -1]), 2)
    assert not counts.any()
    for metric in (metrics.miou, metrics.pixel_accuracy, metrics.class_accuracy):
        assert numpy.isnan(metric(counts))


@pytest.mark.parametrize('label', [3, -2, 255])
def test_a_label_that_is_no_class_is_an_error(label):
    with pytest.raises(ValueError, match=f'labels must be 0 to 2, or -1 for void; given .*{label}'):
        metrics.confusion_matrix(numpy.array([0, 0]), numpy.array([1, label]), 3)


# Objects of 10x10 at x = 0, 20 and 40.
OBJECTS = numpy.array([[0, 0, 10, 10], [0, 20, 10, 30], [0, 40, 10, 50]], float)


def at(*xs):
    return numpy.array([[0, x, 10, x + 10] for x in xs], float).reshape(-1, 4)


def matches(right, objects, scores=None):
    scores = numpy.arange(len(right), 0, -1.0) if scores is None else numpy.array(scores)
    return metrics.DetectionMatches(scores, numpy.array(right, bool), objects)


def test_a_detection_is_right_from_an_overlap_of_a_half_on():
    # 10x5 within 10x10: exactly 0.5. Next to it 10x4.9.
    half = numpy.array([[0, 0, 10, 5], [0, 20, 10, 24.9]])
    assert metrics.match_detections(
        half, numpy.array([0.9, 0.8]), OBJECTS
    ).true_positive.tolist() == [True, False]


def test_of_an_objects_detections_the_best_is_right_and_the_others_are_wrong():
    # The third detection has the highest score of the first object, though not the best overlap.
    result = metrics.match_detections(at(0, 20, 2), numpy.array([0.5, 0.7, 0.9]), OBJECTS)
    assert result.scores.tolist() == [0.9, 0.7, 0.5]
    assert result.true_positive.tolist() == [True, True, False]
    assert result.objects == 3


def test_a_detection_belongs_to_the_object_that_it_overlaps_with_most():
    # Objects at x = 0 and 3; a detection at 1 shares 9 of 11 columns with the first and 8 of 12
    # with the second. Both detections belong to the first, so the second is wrong, and is not
    # passed on to the object that is left.
    objects = at(0, 3)
    result = metrics.match_detections(at(0, 1), numpy.array([0.9, 0.8]), objects)
    assert result.true_positive.tolist() == [True, False]


def test_what_belongs_to_a_difficult_object_counts_neither_way():
    # Right on the difficult one, twice; wrong beside it, at an overlap of 4 / 16.
    result = metrics.match_detections(
        at(0, 1, 6, 40),
        numpy.array([0.9, 0.8, 0.7, 0.6]),
        OBJECTS,
        difficult=numpy.array([True, False, False]),
    )
    assert result.scores.tolist() == [0.7, 0.6]
    assert result.true_positive.tolist() == [False, True]
    assert result.objects == 2


def test_images_without_objects_or_detections_are_matched():
    nothing = metrics.match_detections(at(), numpy.empty(0), OBJECTS)
    assert nothing.objects == 3 and len(nothing.scores) == 0
    wrong = metrics.match_detections(at(0, 7), numpy.array([0.3, 0.4]), at())
    assert wrong.true_positive.tolist() == [False, False] and wrong.objects == 0


# By decreasing score: right, wrong, right, right, wrong, with 4 objects. Precision 1, 1/2, 2/3,
# 3/4, 3/5 at recall 1/4, 1/4, 2/4, 3/4, 3/4. The best precision from a recall on: 1 up to 1/4, and
# 3/4 up to 3/4; 0 after that.
CASE = matches([True, False, True, True, False], objects=4)


def test_the_area_under_the_curve_of_a_case_worked_out_by_hand():
    assert metrics.average_precision(CASE) == pytest.approx(1 / 4 * 1 + 2 / 4 * 3 / 4)


def test_the_eleven_point_mean_of_a_case_worked_out_by_hand():
    # Recalls 0, 0.1, 0.2: 1; 0.3 to 0.7: 3/4; 0.8 to 1: 0.
    expected = (3 * 1 + 5 * 3 / 4) / 11
    assert metrics.average_precision(CASE, eleven_point=True) == pytest.approx(expected)


def test_points_at_exactly_so_many_tenths_are_reached_as_in_chainercv():
    # What ChainerCV 0.13.1 returns for 0 to 10 found of 10, times 11: its points at 3, 6 and 7
    # tenths are 3 * 0.1 and so on, which as floats are more than 3 / 10.
    expected = [0, 2, 3, 3, 5, 6, 6, 7, 9, 10, 11]
    for found, points in enumerate(expected):
        case = matches([True] * found, objects=10)
        assert metrics.average_precision(case, eleven_point=True) == pytest.approx(points / 11)


@pytest.mark.parametrize('eleven_point', [True, False])
def test_all_found_is_one_and_nothing_found_is_zero(eleven_point):
    assert metrics.average_precision(matches([True] * 7, objects=7), eleven_point) == pytest.approx(
        1
    )
    assert metrics.average_precision(matches([], objects=7), eleven_point) == 0
    assert metrics.average_precision(matches([False] * 3, objects=7), eleven_point) == 0


def test_of_several_images_the_scores_are_compared_to_each_other():
    first = matches([True, False], objects=2, scores=[0.9, 0.2])
    second = matches([False, True], objects=1, scores=[0.5, 0.4])
    together = metrics.concatenate_matches([first, second])
    assert together.objects == 3
    # By score: right, wrong, right, wrong: 1 up to 1/3, 2/3 up to 2/3, then 0.
    assert metrics.average_precision(together) == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    assert (
        metrics.concatenate_matches([]).objects == 0
        and len(metrics.concatenate_matches([]).scores) == 0
    )


def test_a_class_without_objects_is_not_in_the_mean():
    nothing = metrics.average_precision(matches([False], objects=0))
    assert numpy.isnan(nothing)
    assert metrics.mean_of_present([0.2, nothing, 0.6]) == pytest.approx(0.4)
    assert numpy.isnan(metrics.mean_of_present([nothing]))
