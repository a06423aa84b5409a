"""The npz file of ``ScaleReport(histogram=True)``: counts of log2|gx| of each layer, over time."""

import dataclasses
import io
import os
import zipfile

from chainerlp.extensions.atomic_write import atomic_write
from chainerlp.extensions.layer_probe import HIGHEST_EXPONENT, LOWEST_EXPONENT

import numpy

EXPONENTS = numpy.arange(LOWEST_EXPONENT, HIGHEST_EXPONENT + 1)
"""ndarray: The ends of the bins as powers of two: bin k has 2^EXPONENTS[k] < |gx| <= twice that."""


@dataclasses.dataclass
class Histograms:
    """Histograms of magnitudes; entry i of each array is one use of one layer in one iteration.

    gx is what is rounded and stored, in float32: the true gradient times the total scale. Where
    that is 2^k, the true gradient's histogram is the same, k bins further down.

    Attributes:
        iteration (:ref:`ndarray`): Iterations, ascending; int64 of shape (n,).
        layer (list of str): Paths of the links.
        call (:ref:`ndarray`): Which use of the link in the pass, from 0; int64 of shape (n,).
        total_scale (:ref:`ndarray`): What gx carries; float64 of shape (n,).
        zero (:ref:`ndarray`): How many elements are zero in float32; int64 of shape (n,).
        below (:ref:`ndarray`): How many are not, with |gx| <= 2^-40; int64 of shape (n,).
        counts (:ref:`ndarray`): How many have 2^-40 2^k < |gx| <= 2^-40 2^(k + 1) for the 56 bins
            k; int64 of shape (n, 56).
        above (:ref:`ndarray`): How many have |gx| > 2^16, inf included; int64 of shape (n,).
        nan (:ref:`ndarray`): How many are NaN; int64 of shape (n,).
    """

    iteration: numpy.ndarray
    layer: list
    call: numpy.ndarray
    total_scale: numpy.ndarray
    zero: numpy.ndarray
    below: numpy.ndarray
    counts: numpy.ndarray
    above: numpy.ndarray
    nan: numpy.ndarray

    def __len__(self):
        return len(self.layer)

    def __add__(self, other):
        """Returns the entries of this one and then those of the other."""
        pairs = zip(_values(self), _values(other))
        return Histograms(
            *(a + b if isinstance(a, list) else numpy.concatenate([a, b]) for a, b in pairs)
        )

    def where(self, chosen):
        """Returns the entries at which a bool array of shape (n,) is true."""
        layer = [path for path, is_chosen in zip(self.layer, chosen) if is_chosen]
        return Histograms(
            *(layer if isinstance(value, list) else value[chosen] for value in _values(self))
        )


def of_counts(iteration, layers, calls, total_scales, counts):
    """Returns the histograms of one iteration.

    Args:
        iteration (int): The iteration.
        layers (list of str): Paths of the links.
        calls (list of int): Which use of the link each is.
        total_scales (list of float): What each gradient carries.
        counts (list of ndarray): :func:`~chainerlp.kernels.magnitude_counts` of each.

    Returns:
        Histograms: An entry for each layer.
    """
    counts = numpy.array(counts, numpy.int64).reshape(len(layers), len(EXPONENTS) + 3)
    zero, below, above, nan = counts[:, [0, 1, -2, -1]].T
    return Histograms(
        numpy.full(len(layers), iteration, numpy.int64),
        list(layers),
        numpy.array(calls, numpy.int64),
        numpy.array(total_scales, numpy.float64),
        zero,
        below,
        counts[:, 2:-2],
        above,
        nan,
    )


def write(path, histograms):
    """Writes a file of histograms in one step.

    It holds the attributes of :class:`Histograms` as arrays of the same names, but for ``layer``:
    that is an int64 array of indices into the array ``layers``, the paths. ``exponents`` is
    :data:`EXPONENTS`.

    Args:
        path (str): The npz file.
        histograms (Histograms): What to write.

    Raises:
        OSError: If it cannot be written. The file is then as it was.
    """
    arrays = dict(zip(_names(), _values(histograms)))
    # Each path once: as a column of strings it would be most of the file.
    number = {path: index for index, path in enumerate(dict.fromkeys(histograms.layer))}
    arrays['layer'] = numpy.array([number[path] for path in histograms.layer], numpy.int64)
    arrays['layers'] = numpy.array(list(number), numpy.str_)
    # Not compressed: it is written anew at every report. In memory first: an archive that meets a
    # full disk by itself is left half open.
    content = io.BytesIO()
    numpy.savez(content, exponents=EXPONENTS, **arrays)
    with atomic_write(path) as unfinished, open(unfinished, 'wb') as file:
        file.write(content.getbuffer())


def read(path):
    """Reads a file of histograms.

    Args:
        path (str): The npz file.

    Returns:
        Histograms: What is in it.

    Raises:
        OSError: If there is no such file, or it is not one of histograms.
    """
    try:
        with numpy.load(path) as file:
            arrays = {name: file[name] for name in _names()}
            paths = file['layers'].tolist()
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise OSError(None, f'not a file of histograms ({error})', os.fspath(path)) from error
    arrays['layer'] = [paths[index] for index in arrays['layer']]
    return Histograms(**arrays)


def _names():
    return [field.name for field in dataclasses.fields(Histograms)]


def _values(histograms):
    return [getattr(histograms, name) for name in _names()]
