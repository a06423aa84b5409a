"""Writing a file so that it is there as a whole or not at all."""

import os


def write(path, text):
    """Writes a text file in one step: whoever reads it meanwhile gets the old one or the new one.

    Args:
        path (str): The file; it is replaced if it exists.
        text (str): What to write.
    """
    unfinished = f'{path}.unfinished'
    with open(unfinished, 'w', encoding='utf-8', newline='') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
