"""NumPy as single functions of Chainer are to see it: with names that it has not, or no longer."""

import warnings

import numpy

# as_strided.py:10 takes the integer types by their sizes, line 252 the types of a gradient.
SCTYPES = {
    'int': [numpy.int8, numpy.int16, numpy.int32, numpy.int64],
    'float': [numpy.float16, numpy.float32, numpy.float64, numpy.longdouble],
}


class NumpyWith:
    """The namespace of NumPy and some further names, which go before NumPy's own.

    Args:
        names: The further names and what they stand for.
    """

    def __init__(self, **names):
        vars(self).update(names)

    def __getattr__(self, name):
        return getattr(numpy, name)


def lacks(name):
    """Returns whether NumPy has no such name; to ask may not warn that the name is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return not hasattr(numpy, name)
