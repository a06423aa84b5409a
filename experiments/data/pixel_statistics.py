"""Mean and standard deviation of the pixels of many images, exactly."""

import numpy


def from_counts(counts):
    """Computes them from how often each value is there.

    Args:
        counts (numpy.ndarray): Of shape (channels, 256): pixels of each value.

    Returns:
        tuple: Means and standard deviations, each a tuple of a float a channel, in units of pixels.
        The deviation of a channel of one value is taken as 1, so that it can be divided by.
    """
    values = numpy.arange(256)
    shares = counts / counts.sum(axis=1, keepdims=True)
    means = shares @ values
    variances = (shares * (values - means[:, None]) ** 2).sum(axis=1)
    return tuple(means.tolist()), tuple(std or 1.0 for std in numpy.sqrt(variances).tolist())
