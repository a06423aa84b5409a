"""Class weights by median frequency (Eigen and Fergus 2015; SegNet, section 4.1)."""

import numpy


def weights(pixels, sizes):
    """Weighs classes so that rare ones count as much as common ones.

    weight of c = median of all frequencies / frequency of c; frequency of c = pixels of c / pixels
    of the images in which c is, void ones included.

    Args:
        pixels (numpy.ndarray): Of shape (images, classes): pixels of each class in each image.
        sizes (numpy.ndarray): Of shape (images,): pixels of each image.

    Returns:
        numpy.ndarray: float32 of shape (classes,). A class that is nowhere weighs 0 and has no part
        in the median.
    """
    of_class = pixels.sum(axis=0)
    of_images = ((pixels > 0) * sizes[:, None]).sum(axis=0)
    found = of_class > 0
    result = numpy.zeros(len(of_class), numpy.float32)
    if found.any():
        frequency = of_class[found] / of_images[found]
        result[found] = numpy.median(frequency) / frequency
    return result
