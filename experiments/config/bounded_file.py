"""Files within bounds: regular ones, of which no more is read than such a file can need.

A FIFO would be waited for, and a device read for ever.
"""

import errno
import math
import os
import stat

from numpy.lib import format as npy


def open_file(path):
    """Opens a regular file, to read bytes.

    Raises:
        OSError: If it cannot be opened, or is something else.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # that it is a folder, open() says
        raise OSError(errno.EINVAL, 'Not a regular file', path)
    return open(path, 'rb')


def read(path, most):
    """Returns the bytes of a regular file.

    Raises:
        OSError: As :func:`open_file`, and if it has more than ``most`` bytes.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f'Larger than {most // 2**20} MiB', path)
        return file.read(size)


def oversized_array(archive):
    """Returns the name of an array in an npz file that claims more than the file has of it.

    Args:
        archive (zipfile.ZipFile): The file.

    Returns:
        str: The first one's name; ``None`` if there is none. What is no array claims nothing.
    """
    for info in archive.infolist():
        try:
            with archive.open(info) as member:
                is_first = npy.read_magic(member) == (1, 0)
                read_header = npy.read_array_header_1_0 if is_first else npy.read_array_header_2_0
                shape, _, dtype = read_header(member)
        except ValueError:
            continue
        if math.prod(shape) * dtype.itemsize > info.file_size:
            return info.filename
    return None
