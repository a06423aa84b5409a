"""Padding values that an integer type cannot hold, wrapped around as they were before NumPy 2.

To pad unsigned labels with -1 filled them up with the largest value (255 for uint8), which is how
labels are marked to be ignored. NumPy 2, and CuPy 14, raise OverflowError for a Python integer.
"""

import warnings

from chainerlp.compat.replacing import replace

import numpy
from chainer.dataset import convert
from chainer.functions.array.pad_sequence import PadSequence


def apply():
    """Replaces both places of Chainer that pad, if such a padding is refused."""
    if _refuses():
        replace(PadSequence, 'forward', _wrapping_forward)  # pad_sequence.py:55, 76
        replace(convert, '_concat_arrays_with_padding', _wrapping_concat)  # convert.py:327


def _refuses():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # NumPy 1.24 to 1.26 do it, and warn
        try:
            numpy.empty(1, numpy.uint8)[0] = -1
        except OverflowError:
            return True
    return False


def _wrapping_forward(forward):

    def wrapping_forward(self, xs):
        self.padding = _wrapped(self.padding, xs[0].dtype)
        return forward(self, xs)

    return wrapping_forward


def _wrapping_concat(concat):

    def wrapping_concat(arrays, padding):
        return concat(arrays, _wrapped(padding, arrays[0].dtype))

    return wrapping_concat


def _wrapped(padding, dtype):
    if isinstance(padding, int) and dtype.kind in 'iu':
        return numpy.asarray(padding).astype(dtype)[()]
    return padding
