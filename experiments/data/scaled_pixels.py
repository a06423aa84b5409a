"""Images in memory, as bytes, handed out as features in [0, 1]."""

import numpy
from chainer.dataset import DatasetMixin

_BRIGHTEST = 255


class ScaledPixels(DatasetMixin):
    """Pairs of an image with pixels in [0, 1] and a class.

    Args:
        images (numpy.ndarray): uint8, of shape (n, channels, height, width).
        classes (numpy.ndarray): int32, of shape (n,).
        dtype (numpy.dtype): Of the images handed out.
    """

    def __init__(self, images, classes, dtype):
        self._images = images
        self._classes = classes
        self._dtype = dtype

    def __len__(self):
        return len(self._images)

    def get_example(self, i):
        """Returns the pair."""
        # In float32, and rounded to the dtype once.
        image = self._images[i].astype(numpy.float32) / _BRIGHTEST
        return image.astype(self._dtype, copy=False), self._classes[i]
