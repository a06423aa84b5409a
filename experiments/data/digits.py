"""scikit-learn's handwritten digits: 1,797 grey images of 8x8 pixels, inside the package."""

from experiments.data.dataset import Data

import numpy
from chainer.datasets import TupleDataset

# A pixel counts the dots, 0 to 16, of a 4x4 block of the scan.
_BRIGHTEST = 16
# The split is part of the data set: no seed of a run changes it.
_SPLIT_SEED = 0


def load(section, dtype):
    """Loads the digits, as vectors of 64 features in [0, 1].

    Args:
        section (experiments.config.dataset.Digits): The config.
        dtype (numpy.dtype): Of the features; float16 holds them exactly.

    Returns:
        experiments.data.Data: The data, split with each class in proportion.
    """
    # Here, since scikit-learn takes half a second to import, whatever the data set is.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, classes = load_digits(return_X_y=True)
    images = (images / _BRIGHTEST).astype(dtype)
    classes = classes.astype(numpy.int32)
    train, test, train_classes, test_classes = train_test_split(
        images, classes, test_size=section.test_size, stratify=classes, random_state=_SPLIT_SEED
    )
    return Data(
        train=TupleDataset(train, train_classes),
        test=TupleDataset(test, test_classes),
        shape=images.shape[1:],
        classes=10,
    )
