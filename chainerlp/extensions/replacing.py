"""Replacing a file in one step: whoever reads it gets the old one or the new one, as a whole."""

import contextlib
import os


@contextlib.contextmanager
def replacing(path):
    """Gives a path to write to; what is there in the end takes the place of a file.

    If it ends in an error, the file stays as it is and nothing is left behind.

    Args:
        path (str): The file to replace or to make.

    Yields:
        str: A path in the same folder, with the same extension.
    """
    stem, extension = os.path.splitext(path)
    unfinished = f'{stem}.unfinished{extension}'
    try:
        yield unfinished
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(unfinished)
        raise
