"""The csv file of :class:`~chainerlp.extensions.ScaleReport`: one row a layer and report."""

import contextlib
import csv
import io
import os
import typing

from chainerlp.extensions.atomic_write import atomic_write


class Row(typing.NamedTuple):
    """What one use of one layer did to its data gradient gx in the backward pass of one iteration.

    Attributes:
        iteration (int): The iteration, from 1.
        layer (str): Path of the link in the model.
        call (int): Which use of the link in the pass, from 0.
        scale (float): α, by which the layer multiplied; 1 where nothing is scaled.
        total_scale (float): The scale that the stored gradient carried.
        underflow (float): Fraction of all elements of gx that are not zero in float32 and are zero
            in the format.
        underflow_unscaled (float): What the same product would have lost with a total scale of 1.
        overflow (float): Fraction of all elements that are finite in float32 and inf in the format.
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


COLUMNS = Row._fields
"""tuple of str: The header."""


def read(path):
    """Reads a file of scales.

    Args:
        path (str): The csv file.

    Returns:
        list of Row: Its rows, without incomplete ones.

    Raises:
        OSError: If there is no such file.
    """
    return [
        Row(int(iteration), layer, int(call), *map(float, values))
        for iteration, layer, call, *values in _whole_lines(path)
    ]


def append(path, rows):
    """Adds rows to a file that :func:`start` has made, all or none of them.

    Args:
        path (str): The csv file.
        rows (list of Row): The rows.

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
    """Makes a file with a header, or keeps of an existing one the rows before an iteration.

    Args:
        path (str): The csv file.
        iteration (int): The first iteration that is to be written next: what a training that was
            resumed from an earlier snapshot repeats is dropped.

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


def _text(rows):
    text = io.StringIO(newline='')
    csv.writer(text).writerows(rows)
    return text.getvalue()
