"""NumPy scalars as parameters of Chainer's functions: taken as Python numbers.

On NumPy 2, and on CuPy 14, an fp16 array times ``np.float64(1e-5)`` is no longer fp16 but float64
(NEP 50). A function that computes with such a parameter then returns a float64 array, or stops in
Chainer's check that a gradient has the type of its data. Python numbers keep the array's type on
every version. Chainer's other functions cast their results back, or were tried and found unharmed.
"""

from chainerlp.compat.replacing import replace

import numpy
from chainer.functions.math.clip import Clip
from chainer.functions.normalization.batch_normalization import FixedBatchNormalization
from chainer.functions.normalization.batch_renormalization import BatchRenormalizationFunction
from chainer.functions.normalization.layer_normalization import LayerNormalization
from chainer.functions.normalization.local_response_normalization import (
    LocalResponseNormalization,
)

# By class, because a function is known under several names and its links call it under another.
_TAKE_SCALARS = (
    Clip,  # clip.py:36, cupy.clip; huber_loss.py:56 clips its gradient to delta
    LayerNormalization,  # layer_normalization.py:34, 64: eps
    LocalResponseNormalization,  # local_response_normalization.py:77-78, 149: k, alpha, beta
    FixedBatchNormalization,  # batch_normalization.py:676, 708: eps
    BatchRenormalizationFunction,  # batch_renormalization.py:80-82: eps
)


def apply():
    """Has the functions above take NumPy scalars, if these change the type of an array."""
    if (numpy.ones(1, numpy.float16) * numpy.float64(1)).dtype != numpy.float16:
        for function in _TAKE_SCALARS:
            replace(function, '__init__', _with_python_scalars)


def _with_python_scalars(init):

    def init_with_python_scalars(self, *args, **kwargs):
        kwargs = {name: _python_scalar(value) for name, value in kwargs.items()}
        init(self, *map(_python_scalar, args), **kwargs)

    return init_with_python_scalars


def _python_scalar(value):
    if isinstance(value, numpy.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, numpy.integer):
        return int(value)
    if isinstance(value, numpy.floating):
        return float(value)
    return value
