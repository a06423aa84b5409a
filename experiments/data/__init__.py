"""The data sets: from a config's ``dataset`` section to :class:`Data`."""

from experiments.data import camvid, cifar, digits, imagenet, text, voc
from experiments.data.dataset import Data

import numpy

_LOADERS = {
    'digits': digits.load_digits,
    'mnist': digits.load_mnist,
    'cifar': cifar.load,
    'imagenet': imagenet.load,
    'voc': voc.load,
    'camvid': camvid.load,
    'text': text.load,
}

__all__ = ['Data', 'load']


def load(section, dtype):
    """Loads a data set.

    Args:
        section: The ``dataset`` section of a config.
        dtype (numpy.dtype): Of the features: the dtype that the model computes in.

    Returns:
        Data: The data set.

    Raises:
        experiments.config.errors.DataError: If a file of it is missing or damaged, the folder is
            not laid out as it must be, or there are fewer examples than asked for.
    """
    # Chainer's mixed16 is no dtype of NumPy's own.
    return _LOADERS[section.name](section, numpy.dtype(dtype))
