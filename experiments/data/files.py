"""The folders and lists of a data set, with errors that say how they must be laid out."""

import os

from experiments.config.errors import DataError


def inner_folder(folder, name, layout):
    """Returns the folder of a data set, where the user may name that folder or the one it is in.

    Args:
        folder (str): What the user named; ``~`` is the home folder.
        name (str): What the folder is called as it is distributed.
        layout (str): What must be in it, for the error.

    Raises:
        DataError: If what the user named is no folder.
    """
    folder = find_folder(folder, layout)
    below = os.path.join(folder, name)
    return below if os.path.isdir(below) else folder


def find_folder(folder, layout):
    """Returns the folder that the user named, ``~`` expanded.

    Args:
        folder (str): What the user named.
        layout (str): What must be in it, for the error.

    Raises:
        DataError: If it is no folder.
    """
    folder = os.path.expanduser(folder)
    if not os.path.isdir(folder):
        raise DataError(f'{folder}: given no folder, allowed: {layout}')
    return folder


def read_lines(path, layout):
    """Reads a text file.

    Args:
        path (str): The file.
        layout (str): What must be in it, for the error.

    Returns:
        list of tuple: Number (from 1) and words of each line that is not empty.

    Raises:
        DataError: If it cannot be read, is not text, or is empty.
    """
    try:
        with open(path, encoding='utf-8') as file:
            text = file.read()
    except OSError as error:
        raise DataError(f'{path}: {error.strerror}; it must be {layout}') from None
    except UnicodeDecodeError as error:
        raise DataError(f'{path}: not text (byte {error.start}); it must be {layout}') from None
    numbered = [(i, line.split()) for i, line in enumerate(text.splitlines(), 1)]
    numbered = [(i, words) for i, words in numbered if words]
    if not numbered:
        raise DataError(f'{path}: empty; it must be {layout}')
    return numbered
