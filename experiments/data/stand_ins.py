"""Going on in spite of a damaged image: the next whole one stands in for it.

A check of all images before training would also find them, but decodes a large data set once more
at every start and every resume. Leaving a damaged image out when it is met would move all that come
after. A stand-in depends on the files alone: each epoch, each resumed run and any number of workers
see the same examples. In an evaluation the stand-in counts twice.
"""

import contextlib
import contextvars
import warnings

from experiments.errors import DamagedImageError, DataError

from chainer.dataset import DatasetMixin

_notes = contextvars.ContextVar('notes', default=None)


class StandIns(DatasetMixin):
    """A data set in which the next whole example stands in for one whose image is damaged.

    Which one was replaced is told in a warning, or to :func:`collected`.

    Args:
        dataset: Raises :class:`~experiments.errors.DamagedImageError` for a damaged example.
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
                _tell(f'{error}; the next image stands in for it')
        raise DataError(f'{last}; and so are all {len(self)} images')


@contextlib.contextmanager
def collected():
    """Gives a list that gets, instead of a warning each, what was replaced within this thread.

    A process that loads for another has it tell: there, each is told once.
    """
    notes = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def _tell(note):
    notes = _notes.get()
    if notes is None:
        warnings.warn(note, stacklevel=4)
    else:
        notes.append(note)
