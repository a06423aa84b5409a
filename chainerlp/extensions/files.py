"""The files of :class:`~chainerlp.extensions.ScaleReport`: ``scales.csv`` and ``histogram.npz``.

Whatever is written is written whole or not at all: after an ``OSError`` a file is as it was.
"""

import contextlib
import csv
import io
import os
import typing
import zipfile

import numpy

EXPONENTS = numpy.arange(-40, 17)
"""ndarray: Exponents of the bins' ends; bin k has ``2^EXPONENTS[k] < |gx| <= 2^EXPONENTS[k+1]``."""

HISTOGRAM = numpy.dtype(
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


class Row(typing.NamedTuple):
    """What one use of one layer did to the gradient that it rounds, in one iteration.

    That is its data gradient gx; of a float32 layer with a ``compute_dtype`` it is gy.

    Attributes:
        iteration (int): The iteration, from 1.
        layer (str): Path of the link in the model.
        call (int): Which use of the link in the pass, from 0.
        scale (float): α, by which the layer multiplied; 1 where nothing is scaled.
        total_scale (float): The scale that the stored gradient carried.
        underflow (float): Fraction of all elements of gx that are not zero in float32 and are zero
            in the format.
        underflow_unscaled (float): What the same product would have lost with a total scale of 1.
        overflow (float): Fraction of all elements that are finite in float32 and beyond the format,
            inf or saturated.
        absmax (float): Largest magnitude of the stored gradient, in float32.
    """

    iteration: int
    layer: str
    call: int
    scale: float
    total_scale: float
    underflow: float
    underflow_unscaled: float
    overflow: float
    absmax: float


class ErrorRow(typing.NamedTuple):
    """How far the gradient of one parameter was off in one iteration: ``gradient_error.csv``.

    Attributes:
        iteration (int): The iteration.
        parameter (str): Path of the parameter in the model.
        error (float): ‖g − g32‖ / ‖g32‖ against a float32 pass.
    """

    iteration: int
    parameter: str
    error: float


class NonzeroRow(typing.NamedTuple):
    """What was left of one layer's gradient in one iteration: ``nonzero.csv``.

    Attributes:
        iteration (int): The iteration.
        layer (str): Path of the link in the model.
        call (int): Which use of the link in the pass, from 0.
        nonzero (float): Share of the elements of the rounded gradient that are not zero.
        nonzero_float32 (float): That in a float32 pass.
    """

    iteration: int
    layer: str
    call: int
    nonzero: float
    nonzero_float32: float


@contextlib.contextmanager
def atomic_write(path):
    """Gives a temporary path to write to, and renames it to ``path`` at the end.

    The content is flushed to disk before the renaming, so that either file is whole after a crash
    of the machine, too. After an error, ``path`` is as it was and the temporary file is removed.

    Args:
        path (str): The file to replace or to make.

    Yields:
        str: A path in the same folder, with the same extension.
    """
    stem, extension = os.path.splitext(path)
    unfinished = f'{stem}.unfinished{extension}'
    try:
        yield unfinished
        with open(unfinished, 'r+b') as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(unfinished)
        raise


def write_text(path, text):
    """Replaces or makes a UTF-8 text file atomically."""
    with atomic_write(path) as unfinished:
        with open(unfinished, 'w', encoding='utf-8', newline='') as file:
            file.write(text)


def read(path, kind=Row):
    """Reads a csv file of rows.

    Args:
        path (str): The csv file.
        kind (type): What its rows are: :class:`Row`, :class:`ErrorRow` or :class:`NonzeroRow`.

    Returns:
        list of kind: Its rows, without incomplete ones.
    """
    types = typing.get_type_hints(kind).values()
    return [
        kind(*(of_column(cell) for of_column, cell in zip(types, line)))
        for line in _whole_lines(path, kind)
    ]


def start(path, iteration, kind=Row):
    """Makes a csv file with a header, or keeps of an existing one the rows before an iteration.

    Args:
        path (str): The csv file.
        iteration (int): The first iteration that is to be written next: what a training that was
            resumed from an earlier snapshot repeats is dropped.
        kind (type): What its rows are.
    """
    lines = []
    if os.path.exists(path):
        lines = [line for line in _whole_lines(path, kind) if int(line[0]) < iteration]
    write_text(path, _csv([kind._fields, *lines]))


def append(path, rows):
    """Adds rows to a csv file; all or none of them."""
    size = os.path.getsize(path)
    try:
        with open(path, 'a', encoding='utf-8', newline='') as file:
            file.write(_csv(rows))
    except OSError:
        with contextlib.suppress(OSError):
            os.truncate(path, size)
        raise


def _whole_lines(path, kind):
    with open(path, encoding='utf-8', newline='') as file:
        lines = [line for line in csv.reader(file) if len(line) == len(kind._fields)]
    return [line for line in lines if line[0].isdigit() and _is_number(line[-1])]


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _csv(rows):
    text = io.StringIO(newline='')
    csv.writer(text).writerows(rows)
    return text.getvalue()


def histograms_of(rows, counts):
    """Returns the histograms of one iteration.

    Args:
        rows (list of Row): What was reported.
        counts (list of ndarray): :func:`~chainerlp.statistics.magnitude_histogram` of each.

    Returns:
        ndarray: One of :data:`HISTOGRAM` for each row.
    """
    histograms = numpy.empty(len(rows), HISTOGRAM)
    for name in ('iteration', 'layer', 'call', 'total_scale'):
        histograms[name] = [getattr(row, name) for row in rows]
    columns = numpy.array(counts)
    histograms['counts'] = columns[:, 2:-2]
    for name, column in (('zero', 0), ('below', 1), ('above', -2), ('nan', -1)):
        histograms[name] = columns[:, column]
    return histograms


def write_histograms(path, histograms):
    """Writes an npz file of histograms.

    It holds the fields of :data:`HISTOGRAM` as arrays of the same names, except that ``layer`` is
    an int64 array of indices into the array ``layers`` of paths; and, as ``exponents``,
    :data:`EXPONENTS`.
    """
    arrays = {name: histograms[name] for name in HISTOGRAM.names}
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


def read_histograms(path):
    """Reads an npz file of histograms.

    Returns:
        ndarray: What is in it, of :data:`HISTOGRAM`.

    Raises:
        OSError: If there is no such file, or it is not one of histograms.
    """
    try:
        with numpy.load(path) as file:
            histograms = numpy.empty(len(file['layer']), HISTOGRAM)
            for name in HISTOGRAM.names:
                histograms[name] = file[name]
            histograms['layer'] = file['layers'][file['layer']]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise OSError(None, f'not a file of histograms ({error})', os.fspath(path)) from error
    return histograms
