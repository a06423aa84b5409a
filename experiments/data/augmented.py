"""A data set whose examples are augmented, in each epoch differently."""

from experiments.data import randomness

from chainer.dataset import DatasetMixin


class Augmented(DatasetMixin):
    """A data set of randomly transformed examples.

    What is drawn depends on the run's seed, the epoch and the example's index, and on nothing else
    (see ``experiments.data.randomness``).

    Args:
        dataset: The examples as they are.
        transform (callable): From an example and a ``numpy.random.Generator`` to an example.
    """

    def __init__(self, dataset, transform):
        self._dataset = dataset
        self._transform = transform

    def __len__(self):
        return len(self._dataset)

    def get_example(self, i):
        """Returns the example, as it is in the epoch that is being loaded."""
        # Negative indices name the same examples, so they must have the same draws.
        index = range(len(self))[i]
        return self._transform(self._dataset[index], randomness.of_example(index))
