"""The files of :class:`~chainerlp.extensions.ScaleReport`: ``scales.csv`` and ``histogram.npz``.

Whatever is written is written whole or not at all: after an ``OSError`` a file is as it was.
"""

import contextlib
import csv
import errno
import io
import os
import typing
import warnings

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
    Links are replaced, not followed: no other file is written to.

    Args:
        path (str): The file to replace or to make.

    Yields:
        str: A path in the same folder, with the same extension.
    """
    stem, extension = os.path.splitext(path)
    unfinished = f'{stem}.unfinished{extension}'
    with contextlib.suppress(FileNotFoundError):
        os.remove(unfinished)  # a killed process left it, or it leads to another file
    try:
        open(unfinished, 'xb').close()
        yield unfinished
        with open(unfinished, 'r+b') as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(unfinished)
        raise


def make_folder(path):
    """Makes a folder and those above it, if they are not there.

    Raises:
        OSError: If it cannot be made, or is a link: what is written into it would go elsewhere.
    """
    if os.path.islink(path):
        raise OSError(errno.ELOOP, 'a link, through which nothing is written', path)
    os.makedirs(path, exist_ok=True)


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
        list of kind: Its rows. A last line without an end is none: its writing was broken off.

    Raises:
        ValueError: If another line is no row.
    """
    with open(path, 'rb') as file:
        return parse(file.read(), kind)


def parse(content, kind=Row):
    """Returns the rows that a csv file of the given bytes has; see :func:`read`."""
    rows = list(_rows(content, kind))
    for row in rows:
        if isinstance(row, ValueError):
            raise row
    return rows


def start(path, iteration, kind=Row):
    """Makes a csv file with a header, or keeps of an existing one the rows before an iteration.

    Lines that are no rows are dropped with a RuntimeWarning.

    Args:
        path (str): The csv file.
        iteration (int): The first iteration that is to be written next: what a training that was
            resumed from an earlier snapshot repeats is dropped.
        kind (type): What its rows are.
    """
    rows = []
    if os.path.exists(path):
        with open(path, 'rb') as file:
            rows = list(_rows(file.read(), kind))
    whole = [row for row in rows if isinstance(row, kind)]
    unreadable = [row for row in rows if not isinstance(row, kind)]
    if unreadable:
        warnings.warn(
            f'{path}: lines that are no rows are dropped, {len(unreadable)} of {len(rows)};'
            f' {unreadable[0]}',
            RuntimeWarning,
            stacklevel=2,
        )
    kept = [row for row in whole if row.iteration < iteration]
    write_text(path, _csv([kind._fields, *kept]))


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


def _rows(content, kind):
    """Yields the row of each line of a csv file, or the ValueError that says why it is none."""
    types = typing.get_type_hints(kind).values()
    *lines, _ = content.split(b'\n')
    if not lines or lines[0].rstrip(b'\r') != ','.join(kind._fields).encode():
        yield ValueError(f'line 1 is not {",".join(kind._fields)}')
    for number, line in enumerate(lines[1:], 2):
        try:
            # One by one: in csv a stray quote would join a line with all that follow.
            (cells,) = csv.reader([line.decode('utf-8').rstrip('\r')], strict=True)
            if len(cells) != len(types):
                raise ValueError
            yield kind(*(of(cell) for of, cell in zip(types, cells)))
        except (ValueError, csv.Error):
            yield ValueError(f'line {number} is not {",".join(kind._fields)}')


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
        with open(path, 'rb') as content, numpy.load(content) as file:
            histograms = numpy.empty(len(file['layer']), HISTOGRAM)
            for name in HISTOGRAM.names:
                histograms[name] = file[name]
            histograms['layer'] = file['layers'][file['layer']]
    except Exception as error:  # of a damaged zip file Python raises nearly anything
        if getattr(error, 'filename', None) is not None:
            raise
        raise OSError(None, f'not a file of histograms ({error})', os.fspath(path)) from error
    return histograms
