"""What every data set is loaded as."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set for classification.

    Attributes:
        train (~chainer.dataset.DatasetMixin): Pairs of features and class to train with.
        test (~chainer.dataset.DatasetMixin): The same to evaluate with.
        shape (tuple of int): Shape of one example's features.
        classes (int): Number of classes.
    """

    train: object
    test: object
    shape: tuple
    classes: int
