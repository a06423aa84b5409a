"""The data sets, one file each: from a config's ``dataset`` section to :class:`Data`."""

from experiments.datasets import digits
from experiments.datasets.data import Data

_LOADERS = {'digits': digits.load}

__all__ = ['Data', 'load']


def load(section, dtype):
    """Loads a data set.

    Args:
        section: The ``dataset`` section of a config.
        dtype (numpy.dtype): Of the features: the dtype that the model computes in.

    Returns:
        Data: The data set.
    """
    return _LOADERS[section.name](section, dtype)
