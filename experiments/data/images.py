"""Reading image files."""

from experiments.errors import DamagedImageError, DataError

import numpy
from PIL import Image

EXTENSIONS = ('.jpeg', '.jpg', '.png')


def read(path):
    """Reads a colour image; grey ones become grey in colour.

    Args:
        path (str): The file, in any format that Pillow knows.

    Returns:
        PIL.Image.Image: The image, decoded, in mode RGB. A rotation noted in the file is ignored,
        as the annotations of all data sets here ignore it.

    Raises:
        DataError: If there is no such file, or it may not be read.
        DamagedImageError: If it cannot be decoded. A byte of a JPEG changed in the middle may not
            be noticed: the format has no checksum.
    """
    return _decoded(path, lambda image: image.convert('RGB'))


def read_labels(path):
    """Reads an image whose grey values, or palette indices, are classes.

    Args:
        path (str): The file.

    Returns:
        numpy.ndarray: The classes, uint8 of shape (height, width).

    Raises:
        DataError: As :func:`read`.
        DamagedImageError: As :func:`read`, and if it is not of one channel of 8 bits.
    """
    labels = _decoded(path, numpy.array)
    if labels.ndim != 2 or labels.dtype != numpy.uint8:
        raise DamagedImageError(
            f'{path}: given {labels.ndim} dimensions of {labels.dtype}, allowed: an image of one'
            ' channel of 8 bits, each pixel a class'
        )
    return labels


def _decoded(path, decode):
    try:
        file = open(path, 'rb')
    except OSError as error:
        raise DataError(f'{path}: {error.strerror}; it must be an image') from None
    with file:
        try:
            return decode(Image.open(file))
        except MemoryError:
            raise
        # Damage can surface as nearly anything: OSError, SyntaxError, struct.error, KeyError ...
        except Exception as error:
            raise DamagedImageError(
                f'{path}: damaged image ({type(error).__name__}: {error})'
            ) from None
