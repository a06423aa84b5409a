from experiments.tasks.voc_ap import (
    Verdicts,
    average_precision,
    joined,
    judge,
    mean_average_precision,
)

import numpy
import pytest

# Objects of 10x10 at x = 0, 20 and 40.
OBJECTS = numpy.array([[0, 0, 10, 10], [0, 20, 10, 30], [0, 40, 10, 50]], float)


def at(*xs):
    return numpy.array([[0, x, 10, x + 10] for x in xs], float).reshape(-1, 4)


def verdicts(right, objects, scores=None):
    scores = numpy.arange(len(right), 0, -1.0) if scores is None else numpy.array(scores)
    return Verdicts(scores, numpy.array(right, bool), objects)


def test_a_detection_is_right_from_an_overlap_of_a_half_on():
    # 10x5 within 10x10: exactly 0.5. Next to it 10x4.9.
    half = numpy.array([[0, 0, 10, 5], [0, 20, 10, 24.9]])
    assert judge(half, numpy.array([0.9, 0.8]), OBJECTS).right.tolist() == [True, False]


def test_of_an_objects_detections_the_best_is_right_and_the_others_are_wrong():
    # The third detection has the highest score of the first object, though not the best overlap.
    result = judge(at(0, 20, 2), numpy.array([0.5, 0.7, 0.9]), OBJECTS)
    assert result.scores.tolist() == [0.9, 0.7, 0.5]
    assert result.right.tolist() == [True, True, False]
    assert result.objects == 3


def test_a_detection_belongs_to_the_object_that_it_overlaps_with_most():
    # Objects at x = 0 and 3; a detection at 1 shares 9 of 11 columns with the first and 8 of 12
    # with the second. Both detections belong to the first, so the second is wrong, and is not
    # passed on to the object that is left.
    objects = at(0, 3)
    result = judge(at(0, 1), numpy.array([0.9, 0.8]), objects)
    assert result.right.tolist() == [True, False]


def test_what_belongs_to_a_difficult_object_counts_neither_way():
    # Right on the difficult one, twice; wrong beside it, at an overlap of 4 / 16.
    result = judge(
        at(0, 1, 6, 40),
        numpy.array([0.9, 0.8, 0.7, 0.6]),
        OBJECTS,
        difficult=numpy.array([True, False, False]),
    )
    assert result.scores.tolist() == [0.7, 0.6]
    assert result.right.tolist() == [False, True]
    assert result.objects == 2


def test_images_without_objects_or_detections_are_judged():
    nothing = judge(at(), numpy.empty(0), OBJECTS)
    assert nothing.objects == 3 and len(nothing.scores) == 0
    wrong = judge(at(0, 7), numpy.array([0.3, 0.4]), at())
    assert wrong.right.tolist() == [False, False] and wrong.objects == 0


# By decreasing score: right, wrong, right, right, wrong, with 4 objects. Precision 1, 1/2, 2/3,
# 3/4, 3/5 at recall 1/4, 1/4, 2/4, 3/4, 3/4. The best precision from a recall on: 1 up to 1/4, and
# 3/4 up to 3/4; 0 after that.
CASE = verdicts([True, False, True, True, False], objects=4)


def test_the_area_under_the_curve_of_a_case_worked_out_by_hand():
    assert average_precision(CASE) == pytest.approx(1 / 4 * 1 + 2 / 4 * 3 / 4)


def test_the_eleven_point_mean_of_a_case_worked_out_by_hand():
    # Recalls 0, 0.1, 0.2: 1; 0.3 to 0.7: 3/4; 0.8 to 1: 0.
    expected = (3 * 1 + 5 * 3 / 4) / 11
    assert average_precision(CASE, eleven_point=True) == pytest.approx(expected)


def test_a_recall_of_three_tenths_reaches_the_point_at_three_tenths():
    # Three of ten found: 0, 0.1, 0.2 and 0.3 are reached; in binary 3 * 0.1 is more than 3 / 10.
    for found in range(11):
        case = verdicts([True] * found, objects=10)
        expected = (found + 1) / 11 if found else 0
        assert average_precision(case, eleven_point=True) == pytest.approx(expected), found


@pytest.mark.parametrize('eleven_point', [True, False])
def test_all_found_is_one_and_nothing_found_is_zero(eleven_point):
    assert average_precision(verdicts([True] * 7, objects=7), eleven_point) == pytest.approx(1)
    assert average_precision(verdicts([], objects=7), eleven_point) == 0
    assert average_precision(verdicts([False] * 3, objects=7), eleven_point) == 0


def test_of_several_images_the_scores_are_compared_to_each_other():
    first = verdicts([True, False], objects=2, scores=[0.9, 0.2])
    second = verdicts([False, True], objects=1, scores=[0.5, 0.4])
    together = joined([first, second])
    assert together.objects == 3
    # By score: right, wrong, right, wrong: 1 up to 1/3, 2/3 up to 2/3, then 0.
    assert average_precision(together) == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    assert joined([]).objects == 0 and len(joined([]).scores) == 0


def test_a_class_without_objects_is_not_in_the_mean():
    nothing = average_precision(verdicts([False], objects=0))
    assert numpy.isnan(nothing)
    assert mean_average_precision([0.2, nothing, 0.6]) == pytest.approx(0.4)
    assert numpy.isnan(mean_average_precision([nothing]))
