"""The intersection over union of boxes."""

import numpy


def box_iou(boxes, others):
    """Returns the intersection over union (IoU, Jaccard index) of each pair of boxes.

    A box is (y_min, x_min, y_max, x_max), its edges lines between pixels; PASCAL VOC's toolkit
    takes the edges for the outermost pixels and adds 1 to every height and width.

    Args:
        boxes (numpy.ndarray): (m, 4), floats.
        others (numpy.ndarray): (n, 4), floats of the same unit and dtype.

    Returns:
        numpy.ndarray: (m, n), each 0 to 1; 0 where both boxes are empty.
    """
    # Coordinate by coordinate and in place: several times as fast as in three expressions.
    y_min, x_min, y_max, x_max = numpy.ascontiguousarray(boxes.T)[:, :, None]
    to_y_min, to_x_min, to_y_max, to_x_max = numpy.ascontiguousarray(others.T)[:, None]
    intersection = numpy.minimum(y_max, to_y_max)
    spare = numpy.maximum(y_min, to_y_min)
    intersection -= spare
    numpy.maximum(intersection, 0, out=intersection)
    widths = numpy.minimum(x_max, to_x_max)
    widths -= numpy.maximum(x_min, to_x_min, out=spare)
    numpy.maximum(widths, 0, out=widths)
    intersection *= widths
    areas = (y_max - y_min) * (x_max - x_min)
    union = numpy.add(areas, (to_y_max - to_y_min) * (to_x_max - to_x_min), out=spare)
    union -= intersection
    return numpy.divide(intersection, union, out=intersection, where=union > 0)
