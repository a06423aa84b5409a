"""Temporary."""
from chainerlp.scaled_array import ScaledArray


def rescale(array, scale, target):
    return ScaledArray(array, scale).to(target).array
