"""Replacing a file in one step: whoever reads it gets the old one or the new one, as a whole."""

import contextlib
import os


@contextlib.contextmanager
def replacing(path):
    """Gives a path to write to; what is there in the end takes the place of a file.

    It is on the disk before it does, so that a machine that crashes leaves the one or the other,
    too. If it ends in an error, the file stays as it is and nothing is left behind.

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


def replace_text(path, text):
    """Replaces a text file in one step.

    Args:
        path (str): The file to replace or to make.
        text (str): What it is to hold, written as UTF-8.

    Raises:
        OSError: If it cannot be written. The file is then as it was.
    """
    with replacing(path) as unfinished:
        with open(unfinished, 'w', encoding='utf-8', newline='') as file:
            file.write(text)
