"""The csv file of :class:`~chainerlp.extensions.ScaleReport`: one line a layer and report."""

import collections
import contextlib
import csv
import dataclasses
import io
import os

from chainerlp.extensions.atomic_write import atomic_write
from chainerlp.extensions.measurement import Measurement

COLUMNS = ('iteration',) + tuple(field.name for field in dataclasses.fields(Measurement))
"""tuple of str: The header, see :class:`~chainerlp.extensions.Measurement`."""

Row = collections.namedtuple('Row', COLUMNS)
"""A line: iteration and call are ints, layer a str, the others floats."""


def read(path):
    """Reads a file of scales.

    Args:
        path (str): The csv file.

    Returns:
        list of Row: Its lines, without those that are not whole.

    Raises:
        OSError: If there is no such file.
    """
    return [_row(line) for line in _whole_lines(path)]


def append(path, rows):
    """Adds lines to a file that :func:`start` has made, all or none of them.

    Args:
        path (str): The csv file.
        rows (list of Row): The lines.

    Raises:
        OSError: If they cannot be written. The file is then as it was.
    """
    size = os.path.getsize(path)
    try:
        with open(path, 'a', newline='') as file:
            file.write(_text(rows))
    except OSError:
        with contextlib.suppress(OSError):
            os.truncate(path, size)
        raise


def start(path, iteration):
    """Leaves a header and the lines before an iteration: a new training's, or a resumed one's.

    Args:
        path (str): The csv file; it is made if it is not there.
        iteration (int): The first that is to be written next.

    Raises:
        OSError: If it cannot be written. The file is then as it was.
    """
    lines = []
    if os.path.exists(path):
        lines = [line for line in _whole_lines(path) if int(line[0]) < iteration]
    with atomic_write(path) as unfinished, open(unfinished, 'w', newline='') as file:
        file.write(_text([COLUMNS, *lines]))


def _whole_lines(path):
    with open(path, newline='') as file:
        lines = [line for line in csv.reader(file) if len(line) == len(COLUMNS)]
    return [line for line in lines if line[0].isdigit() and _is_number(line[-1])]


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _row(line):
    iteration, layer, call, *values = line
    return Row(int(iteration), layer, int(call), *map(float, values))


def _text(rows):
    text = io.StringIO(newline='')
    csv.writer(text).writerows(rows)
    return text.getvalue()
