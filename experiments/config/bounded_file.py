"""Files within bounds: regular ones, of which no more is read than such a file can need.

A FIFO would be waited for, and a device read for ever.
"""

import errno
import os
import stat


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
