"""English text, character by character: the descriptions of scikit-learn's data sets."""

import importlib.resources
import re
import string

from experiments.config.errors import DataError
from experiments.data.dataset import Data, first_examples

import numpy
from chainer.datasets import TupleDataset

# The classes in their order.
_ALPHABET = ' ' + string.ascii_lowercase + string.digits + string.punctuation


def load(section, dtype):
    """Cuts scikit-learn's descriptions into examples, each to be continued at all its positions.

    An example is ``length`` characters and, of each, the one that follows; both int32 of that
    shape, whatever the dtype. The end of the text is the test set: no character of it is in an
    example to train with. See :func:`experiments.data.load`.
    """
    text = encode(_read())
    length, test_size = section.length, section.test_size
    # A part of n examples has n * length characters, and the one that follows its last.
    most_long = len(text) // 2 - 1
    if length > most_long:
        raise DataError(f'dataset.length: given {length}, allowed: at most {most_long}')
    most = (len(text) - 2 - length) // length
    if test_size > most:
        raise DataError(
            f'dataset.test_size: given {test_size} examples of {length} characters, allowed: at'
            f' most {most}, of a text of {len(text)}, so that one is left to train with'
        )
    split = len(text) - (test_size * length + 1)
    train, test = (_examples(part, length) for part in (text[:split], text[split:]))
    size = len(first_examples(train[0], section.train_size, 'dataset.train_size'))
    chosen = numpy.arange(size) * len(train[0]) // size
    return Data(
        train=TupleDataset(*(column[chosen] for column in train)),
        test=TupleDataset(*test),
        shape=(length,),
        classes=len(_ALPHABET),
        class_names=tuple(_ALPHABET),
    )


def _read():
    # That package takes half a second to import, and so is no import of this module's.
    folder = importlib.resources.files('sklearn.datasets.descr')
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith('.rst')),
        key=lambda file: file.name,
    )
    return '\n'.join(file.read_text(encoding='utf-8') for file in files)


def encode(text):
    """Returns the characters of a text as classes, int32.

    Capitals are small letters, white space is one space, and what is not in ASCII is left out.

    >>> encode('A  b').tolist()
    [1, 0, 2]
    """
    text = re.sub(rf'[^{re.escape(_ALPHABET)}\s]', '', text.lower())
    text = re.sub(r'\s+', ' ', text)
    return numpy.array([_ALPHABET.index(character) for character in text], numpy.int32)


def _examples(text, length):
    """Returns the characters of all examples and those that follow, each (examples, length)."""
    count = (len(text) - 1) // length
    return [text[start:][: count * length].reshape(count, length) for start in (0, 1)]
