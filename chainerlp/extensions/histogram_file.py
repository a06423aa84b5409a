"""The npz file of ``ScaleReport(histogram=True)``: counts of log2|gx| of each layer."""

import io
import os
import zipfile

from chainerlp.extensions.atomic_write import atomic_write
from chainerlp.extensions.layer_probe import HIGHEST_EXPONENT, LOWEST_EXPONENT

import numpy

EXPONENTS = numpy.arange(LOWEST_EXPONENT, HIGHEST_EXPONENT + 1)
"""ndarray: Exponents of the bins' ends: bin k has 2^EXPONENTS[k] < |gx| <= 2^EXPONENTS[k + 1]."""

DTYPE = numpy.dtype(
    [
        ('iteration', numpy.int64),
        ('layer', numpy.object_),  # path of the link, a str
        ('call', numpy.int64),  # which use of the link in the pass, from 0
        ('total_scale', numpy.float64),
        # How many elements of gx, the true gradient times total_scale, in float32:
        ('zero', numpy.int64),  # are zero
        ('below', numpy.int64),  # have 0 < |gx| <= 2^-40
        ('counts', numpy.int64, len(EXPONENTS) - 1),  # lie in each of the bins
        ('above', numpy.int64),  # have |gx| > 2^16, inf included
        ('nan', numpy.int64),  # are NaN
    ]
)
"""numpy.dtype: A histogram: that of one use of one layer in one iteration.

Where the total scale is 2^k, the histogram of the true gradient is the same, k bins further down.
"""


def of_counts(iteration, layers, calls, total_scales, counts):
    """Returns the histograms of one iteration.

    Args:
        iteration (int): The iteration.
        layers (list of str): Paths of the links.
        calls (list of int): Which use of the link each is.
        total_scales (list of float): The total scale of each gradient.
        counts (list of ndarray): :func:`~chainerlp.magnitude_counts.magnitude_histogram` of each.

    Returns:
        ndarray: One of :data:`DTYPE` for each layer.
    """
    histograms = numpy.empty(len(layers), DTYPE)
    columns = numpy.array(counts, numpy.int64).reshape(len(layers), len(EXPONENTS) + 3)
    histograms['iteration'] = iteration
    histograms['layer'] = layers
    histograms['call'] = calls
    histograms['total_scale'] = total_scales
    histograms['counts'] = columns[:, 2:-2]
    for name, column in (('zero', 0), ('below', 1), ('above', -2), ('nan', -1)):
        histograms[name] = columns[:, column]
    return histograms


def write(path, histograms):
    """Writes a file of histograms atomically.

    It holds the fields of :data:`DTYPE` as arrays of the same names, except that ``layer`` is an
    int64 array of indices into the array ``layers`` of paths; and, as ``exponents``,
    :data:`EXPONENTS`.

    Args:
        path (str): The npz file.
        histograms (ndarray): What to write.

    Raises:
        OSError: If it cannot be written. The file is then as it was.
    """
    arrays = {name: histograms[name] for name in DTYPE.names}
    # Each path is stored once: a column of strings would be most of the file.
    index = {path: number for number, path in enumerate(dict.fromkeys(arrays['layer']))}
    arrays['layer'] = numpy.array([index[path] for path in arrays['layer']], numpy.int64)
    arrays['layers'] = numpy.array(list(index), numpy.str_)
    # Not compressed, since it is written anew at every report. Made in memory, since NumPy does not
    # close an archive that it could not write to a full disk.
    content = io.BytesIO()
    numpy.savez(content, exponents=EXPONENTS, **arrays)
    with atomic_write(path) as unfinished, open(unfinished, 'wb') as file:
        file.write(content.getbuffer())


def read(path):
    """Reads a file of histograms.

    Args:
        path (str): The npz file.

    Returns:
        ndarray: What is in it, of :data:`DTYPE`.

    Raises:
        OSError: If there is no such file, or it is not one of histograms.
    """
    try:
        with numpy.load(path) as file:
            histograms = numpy.empty(len(file['layer']), DTYPE)
            for name in DTYPE.names:
                histograms[name] = file[name]
            histograms['layer'] = file['layers'][file['layer']]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise OSError(None, f'not a file of histograms ({error})', os.fspath(path)) from error
    return histograms
