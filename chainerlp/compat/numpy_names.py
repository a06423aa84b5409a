"""Names of NumPy that Chainer uses at run time and that are gone, or give something else, today."""

from chainerlp.compat import namespaces
from chainerlp.compat.replacing import replace

import numpy
from chainer.distributions.categorical import Categorical
from chainer.functions.array import resize_images
from chainer.functions.array.as_strided import AsStridedGrad


def apply():
    """Has three functions of Chainer see NumPy as it was, each only if it has to."""
    if namespaces.numpy_lacks('sctypes'):  # as_strided.py:252
        with_sctypes = namespaces.With(numpy, sctypes=namespaces.SCTYPES)
        replace(AsStridedGrad, 'forward', namespaces.seeing(np=with_sctypes))
    if namespaces.numpy_lacks('float'):  # resize_images.py:179-196
        with_float = namespaces.With(numpy, float=float)
        replace(resize_images, 'compute_indices_and_weights', namespaces.seeing(numpy=with_float))
    if isinstance(numpy.meshgrid([0]), tuple):  # categorical.py:74 and 76 add it to a list
        with_lists = namespaces.With(numpy, meshgrid=_meshgrid)
        replace(Categorical, 'log_prob', namespaces.seeing(numpy=with_lists))


def _meshgrid(*arrays, **kwargs):
    return list(numpy.meshgrid(*arrays, **kwargs))
