"""Names of NumPy that Chainer uses at run time and that are gone, or give something else, today."""

import types

from chainerlp.compat import numpy_namespace
from chainerlp.compat.replacing import replace

import numpy
from chainer.distributions.categorical import Categorical
from chainer.functions.array import resize_images
from chainer.functions.array.as_strided import AsStridedGrad


def apply():
    """Has three functions of Chainer see NumPy as it was, each only if it has to."""
    if numpy_namespace.lacks('sctypes'):  # as_strided.py:252
        replace(AsStridedGrad, 'forward', _seeing('np', sctypes=numpy_namespace.SCTYPES))
    if numpy_namespace.lacks('float'):  # resize_images.py:179-196
        replace(resize_images, 'compute_indices_and_weights', _seeing('numpy', float=float))
    if isinstance(numpy.meshgrid([0]), tuple):  # categorical.py:74 and 76 add it to a list
        replace(Categorical, 'log_prob', _seeing('numpy', meshgrid=_meshgrid))


def _seeing(variable, **names):
    """Returns what builds a function with the same code, to which NumPy has further names.

    Only this function is to see them. The others in its module ask whether an array's module *is*
    NumPy, which holds for no other object.
    """

    def build(function):
        seen = {**function.__globals__, variable: numpy_namespace.NumpyWith(**names)}
        return types.FunctionType(
            function.__code__, seen, function.__name__, function.__defaults__, function.__closure__
        )

    return build


def _meshgrid(*arrays, **kwargs):
    return list(numpy.meshgrid(*arrays, **kwargs))
