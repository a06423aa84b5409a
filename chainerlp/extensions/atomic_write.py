"""Writing a file atomically: a reader sees the old file or the new one, never a part of either."""

import contextlib
import os


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
    """Writes a text file atomically.

    Args:
        path (str): The file to replace or to make.
        text (str): Its new content, written as UTF-8.

    Raises:
        OSError: If it cannot be written. The file is then as it was.
    """
    with atomic_write(path) as unfinished:
        with open(unfinished, 'w', encoding='utf-8', newline='') as file:
            file.write(text)
