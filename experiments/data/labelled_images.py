"""Image files with something to say about each."""

from experiments.data import images

from chainer.dataset import DatasetMixin


class LabelledImages(DatasetMixin):
    """Tuples of a decoded image and what belongs to it; a file is read when it is asked for.

    Args:
        paths (sequence of str): The image files.
        *labels: Sequences of the same length, of whatever belongs to each image.
    """

    def __init__(self, paths, *labels):
        self._paths = paths
        self._labels = labels

    def __len__(self):
        return len(self._paths)

    def get_example(self, i):
        """Returns the image, a :class:`PIL.Image.Image` in mode RGB, and what belongs to it.

        Raises:
            DamagedImageError: If the image cannot be decoded.
        """
        return (images.read(self._paths[i]), *(labels[i] for labels in self._labels))
