"""Reading image files, and replacing those that are damaged."""

import contextlib
import contextvars
import math
import os
import warnings

from experiments.config.bounded_file import open_file
from experiments.config.errors import DamagedImageError, DataError

import numpy
from chainer.dataset import DatasetMixin
from chainer.datasets import TransformDataset, TupleDataset
from PIL import Image

EXTENSIONS = ('.jpeg', '.jpg', '.png')
_FORMATS = ('JPEG', 'PNG')  # whatever the name says; others let Pillow start programs
_MOST_PIXELS = 2**26  # 8192 x 8192
_collected = contextvars.ContextVar('collected', default=None)


def image_names(folder, allowed):
    """Returns the names of the image files in a folder, sorted.

    Raises:
        DataError: If there is none; it says what is ``allowed``.
    """
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(EXTENSIONS))
    if not names:
        raise DataError(f'{folder}: given no image, allowed: {allowed}')
    return names


def read_image(path):
    """Returns the :class:`PIL.Image.Image` in a JPEG or PNG file, decoded, in mode RGB.

    A rotation noted in the file is ignored, as the annotations of all data sets here ignore it.

    Raises:
        DataError: If there is no such file, or it may not be read.
        DamagedImageError: If it cannot be decoded, or has more than 2^26 pixels; not all damage of
            a JPEG can be noticed.
    """
    return _decoded(path, lambda image: image.convert('RGB'))


def read_labels(path):
    """Returns the grey values, or palette indices, of an image: uint8 of shape (height, width).

    Raises:
        DataError: As :func:`read_image`.
        DamagedImageError: As :func:`read_image`, and if it is not of one channel of 8 bits.
    """
    labels = _decoded(path, numpy.array)
    if labels.ndim != 2 or labels.dtype != numpy.uint8:
        raise DamagedImageError(
            f'{path}: given {labels.ndim} dimensions of {labels.dtype}, allowed: an image of one'
            ' channel of 8 bits, each pixel a class'
        )
    return labels


def _decoded(path, decode):
    try:
        file = open_file(path)
    except OSError as error:
        raise DataError(f'{path}: {error.strerror}; it must be an image') from None
    with file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('error', Image.DecompressionBombWarning)
                image = Image.open(file, formats=_FORMATS)
            if math.prod(image.size) > _MOST_PIXELS:
                raise ValueError(f'{" x ".join(map(str, image.size))} pixels')
            return decode(image)
        except MemoryError:
            raise
        # Damage can surface as nearly anything: OSError, SyntaxError, struct.error, KeyError ...
        except Exception as error:
            raise DamagedImageError(
                f'{path}: damaged image ({type(error).__name__}: {error}), allowed: a JPEG or PNG'
                f' of at most {_MOST_PIXELS} pixels'
            ) from None


def labelled_images(paths, *labels):
    """Returns a data set of tuples of an image and its labels; a file is read when asked for.

    ``labels`` are sequences as long as ``paths``, of labels of any kind.
    """
    return TransformDataset(TupleDataset(paths, *labels), _read_example)


def _read_example(example):
    path, *labels = example
    return (read_image(path), *labels)


class ReplaceDamaged(DatasetMixin):
    """A data set in which the next whole example replaces one whose image is damaged.

    This is found when an example is asked for: a check of all images beforehand would decode the
    whole data set at every start. A warning tells of each replacement, unless
    :func:`collect_warnings` takes it. In an evaluation the replacement counts twice.
    """

    def __init__(self, dataset):
        self._dataset = dataset

    def __len__(self):
        return len(self._dataset)

    def get_example(self, i):
        """Returns the example, or the next one that is whole; after the last comes the first."""
        index = range(len(self))[i]  # an IndexError after the last, which ends a loop over them
        for step in range(len(self)):
            try:
                return self._dataset[(index + step) % len(self)]
            except DamagedImageError as error:
                last = error
                message = f'{error}; the next image stands in for it'
                collected = _collected.get()
                if collected is None:
                    warnings.warn(message, stacklevel=3)
                else:
                    collected.append(message)
        raise DataError(f'{last}; and so are all {len(self)} images')


@contextlib.contextmanager
def collect_warnings():
    """A context that gives a list, to which this thread's warnings of replacements go instead.

    A worker passes them to the process that it loads for, which warns once of each.
    """
    collected = []
    token = _collected.set(collected)
    try:
        yield collected
    finally:
        _collected.reset(token)
