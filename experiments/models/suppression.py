"""Non-maximum suppression: of boxes that overlap, the one of highest score."""

from experiments.overlap import overlaps

import numpy


def suppress(boxes, threshold):
    """Leaves out every box that overlaps with a better one that is kept.

    The greedy algorithm, one box after the other, has one answer; here all boxes are looked at
    together again and again until that answer no longer changes (Zheng et al. 2020, arXiv
    2005.03572, Cluster-NMS), which takes a few rounds instead of hundreds.

    Args:
        boxes (numpy.ndarray): (n, 4), by decreasing score.
        threshold (float): An overlap (IoU) over it suppresses.

    Returns:
        numpy.ndarray: (n,), bool: which are kept.
    """
    # [i, j]: box i, if it is kept, suppresses box j.
    suppresses = numpy.triu(overlaps(boxes, boxes) > threshold, 1)
    kept = numpy.ones(len(boxes), bool)
    while True:
        # After round k the first k boxes are final, since nothing suppresses a better one.
        now = ~suppresses[kept].any(axis=0)
        if (now == kept).all():
            return kept
        kept = now
