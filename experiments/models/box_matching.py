"""What each default box of SSD has to find in an image.

Liu et al. 2016, section 2.2, "Matching strategy".
"""

from experiments.models.box_coding import corners, encode
from experiments.overlap import overlaps

import numpy

BACKGROUND = 0


class BoxMatcher:
    """Turns an image's objects, however many, into targets of fixed size, one a default box.

    It belongs into the data set (``chainer.datasets.TransformDataset(data, matcher)``): there the
    processes that load images do it, each for its own image, and the batches can be
    concatenated, sent to a device and trained on without a loop over images.

    Args:
        default_boxes (numpy.ndarray): (boxes, 4), of the model: ``ssd.default_boxes``.
        threshold (float): An overlap (IoU) over it is a match.
    """

    def __init__(self, default_boxes, threshold=0.5):
        self._default_boxes = default_boxes
        self._corners = corners(default_boxes)
        self._threshold = threshold

    def __call__(self, example):
        """Matches the objects of an example, those that are hard to detect among them.

        Args:
            example (tuple): Image, boxes (n, 4) as (y_min, x_min, y_max, x_max) in pixels, labels
                (n,) from 0; what follows, as ``difficult``, is left out.

        Returns:
            tuple: Image, encoded boxes (boxes, 4) in float32 and labels (boxes,) in int32: 0 for
            background, where the encoded box is 0, or 1 + the object's label.

        Raises:
            ValueError: If a box has no area.
        """
        image, objects, labels = example[:3]
        locs = numpy.zeros(self._default_boxes.shape, numpy.float32)
        targets = numpy.full(len(locs), BACKGROUND, numpy.int32)
        if len(objects) > 0:
            if not (objects[:, 2:] > objects[:, :2]).all():
                raise ValueError(f'boxes must have height and width, given {objects.tolist()}')
            matches = self._match(objects)
            found = matches >= 0
            locs[found] = encode(objects[matches[found]], self._default_boxes[found])
            targets[found] = 1 + labels[matches[found]]
        return image, locs, targets

    def _match(self, objects):
        """Returns the index of each default box's object, or -1."""
        overlap = overlaps(self._corners, objects)
        best = overlap.argmax(axis=1)
        best_overlap = overlap[numpy.arange(len(overlap)), best]
        matches = numpy.where(best_overlap > self._threshold, best, -1)
        # Every object gets a default box of its own, whatever the overlap: the best pair first.
        for _ in range(len(objects)):
            default, of_object = numpy.unravel_index(overlap.argmax(), overlap.shape)
            matches[default] = of_object
            overlap[default] = overlap[:, of_object] = -1
        return matches
