"""Modules as single functions of Chainer are to see them: with names that these do not have."""

import types
import warnings

import numpy

# as_strided.py:10 takes the integer types by their sizes, line 252 the types of a gradient.
SCTYPES = {
    'int': [numpy.int8, numpy.int16, numpy.int32, numpy.int64],
    'float': [numpy.float16, numpy.float32, numpy.float64, numpy.longdouble],
}


class With:
    """The namespace of a module and some further names, which go before the module's own.

    Args:
        module: The module.
        names: The further names and what they stand for.
    """

    def __init__(self, module, /, **names):
        vars(self).update(names, _module=module)

    def __getattr__(self, name):
        return getattr(self._module, name)


def seeing(**namespaces):
    """Returns what builds a function with the same code, to which global names mean other things.

    Only this function is to see them. The others in its module ask whether an array's module *is*
    NumPy, which holds for no other object.

    Args:
        namespaces: The global names and what they are to stand for.

    Returns:
        A function that takes a function and returns another, for
        :func:`chainerlp.compat.replacing.replace`.
    """

    def build(function):
        seen = {**function.__globals__, **namespaces}
        return types.FunctionType(
            function.__code__, seen, function.__name__, function.__defaults__, function.__closure__
        )

    return build


def numpy_lacks(name):
    """Returns whether NumPy has no such name; to ask may not warn that the name is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return not hasattr(numpy, name)
