from experiments.data.boxes import box_iou

import numpy


def test_the_overlaps_of_a_case_worked_out_by_hand():
    boxes = numpy.array([[0, 0, 10, 10], [0, 0, 2, 5]], numpy.float32)
    others = numpy.array(
        [
            [0, 0, 10, 10],  # 100 of 100; 10 of 100
            [5, 5, 15, 15],  # 5 * 5 of 100 + 100 - 25; nothing, it begins at row 5
            [10, 0, 20, 10],  # an edge in common is nothing in common
            [1, 1, 3, 3],  # 4 of 100; 1 * 2 of 10 + 4 - 2
        ],
        numpy.float32,
    )
    expected = [[1, 25 / 175, 0, 0.04], [0.1, 0, 0, 2 / 12]]
    iou = box_iou(boxes, others)
    assert iou.dtype == numpy.float32
    # The last division is rounded: 2^-24 relative.
    numpy.testing.assert_allclose(iou, expected, rtol=2**-23)


def test_boxes_without_area_overlap_with_nothing():
    empty = numpy.array([[3.0, 3, 3, 8], [0, 0, 0, 0]])
    assert not box_iou(empty, empty).any()
    assert not box_iou(empty, numpy.array([[0.0, 0, 10, 10]])).any()


def test_of_no_boxes_there_are_no_overlaps():
    assert box_iou(numpy.empty((0, 4)), numpy.ones((3, 4))).shape == (0, 3)
    assert box_iou(numpy.ones((3, 4)), numpy.empty((0, 4))).shape == (3, 0)


def test_the_boxes_are_left_as_they_are():
    boxes = numpy.random.RandomState(0).rand(5, 4)
    before = boxes.copy()
    box_iou(boxes, boxes)
    numpy.testing.assert_array_equal(boxes, before)
