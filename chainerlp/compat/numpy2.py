"""What NumPy 2 breaks of Chainer at run time, and CuPy, which follows it."""

from chainerlp.compat.importing import SCTYPES
from chainerlp.compat.patching import Overlay, patch, with_globals

import chainer
import numpy
from chainer import backend, reporter
from chainer.backends import cuda
from chainer.dataset import convert
from chainer.distributions.categorical import Categorical
from chainer.functions.array import resize_images
from chainer.functions.array.as_strided import AsStridedGrad
from chainer.functions.array.pad_sequence import PadSequence
from chainer.functions.math.clip import Clip
from chainer.functions.normalization.batch_normalization import FixedBatchNormalization
from chainer.functions.normalization.batch_renormalization import BatchRenormalizationFunction
from chainer.functions.normalization.layer_normalization import LayerNormalization
from chainer.functions.normalization.local_response_normalization import (
    LocalResponseNormalization,
)

# By class, because a function is known under several names and its links call it under another.
# Chainer's other functions cast their results back, or were tried and found unharmed.
_FUNCTIONS_OF_SCALARS = (
    Clip,  # clip.py:36, cupy.clip; huber_loss.py:56 clips its gradient to delta
    LayerNormalization,  # layer_normalization.py:34, 64: eps
    LocalResponseNormalization,  # local_response_normalization.py:77-78, 149: k, alpha, beta
    FixedBatchNormalization,  # batch_normalization.py:676, 708: eps
    BatchRenormalizationFunction,  # batch_renormalization.py:80-82: eps
)


def apply():
    """Patches what NumPy breaks; each thing only if this NumPy does."""
    # NumPy 1.24 removed it already; resize_images.py:179-196
    with_float = Overlay(numpy, float=float)
    patch(resize_images, 'compute_indices_and_weights', with_globals(numpy=with_float))
    on_numpy_2 = int(numpy.__version__.split('.')[0]) >= 2
    if on_numpy_2 or cuda.available:
        patch(reporter.Summary, 'add', _adding_in_double)
    if on_numpy_2:
        with_sctypes = Overlay(numpy, sctypes=SCTYPES)  # as_strided.py:252
        patch(AsStridedGrad, 'forward', with_globals(np=with_sctypes))
        with_lists = Overlay(numpy, meshgrid=_meshgrid)  # categorical.py:74 and 76 add to a list
        patch(Categorical, 'log_prob', with_globals(numpy=with_lists))
        for function in _FUNCTIONS_OF_SCALARS:
            patch(function, '__init__', _with_python_scalars)
        patch(PadSequence, 'forward', _wrapping_forward)  # pad_sequence.py:55, 76
        patch(convert, '_concat_arrays_with_padding', _wrapping_concat)  # convert.py:327


def _meshgrid(*arrays, **kwargs):
    return list(numpy.meshgrid(*arrays, **kwargs))


def _adding_in_double(add):
    """Has ``reporter.Summary``, the means that are logged, add up in double precision.

    Chainer starts from the Python numbers 0.0 and 0 and adds to them (``reporter.py:298-300``).
    NumPy 1 made a float64 of a Python float and an fp16 scalar; NumPy 2 makes an fp16 of them, and
    then 1 is added to 2048 in vain: the mean of 4096 ones is 0.5. Squares above 65504 are inf. So
    every mean of fp16 losses that LogReport or Evaluator gives is wrong, and nothing says so. CuPy
    makes an fp16 of a Python float and a 0-d fp16 array whatever NumPy's version.
    """

    def add_in_double(self, value, weight=1):
        value, weight = chainer.as_array(value), chainer.as_array(weight)
        with chainer.using_device(backend.get_device_from_array(value)):
            add(self, _widened(value), _widened_weight(weight))

    return add_in_double


def _widened(value):
    """Returns a number in a type that can hold sums of it and of its square.

    A NumPy scalar or array becomes float64. An fp16 array elsewhere becomes float32 and stays where
    it is: nobody waits for the device. A Python number is double anyway.
    """
    if isinstance(value, (numpy.generic, numpy.ndarray)):
        # Of longdouble, complex or object Chainer makes what it always did.
        return numpy.float64(value) if value.dtype.kind in 'biuf' and value.itemsize <= 8 else value
    if getattr(value, 'dtype', None) == numpy.float16:
        return value.astype(numpy.float32)
    return value


def _widened_weight(weight):
    # Integers stay integers, since Chainer refuses to resume a count that it finds to be a float,
    # but become Python's: NumPy 2 adds int8 up in int8.
    if isinstance(weight, (numpy.generic, numpy.ndarray)) and weight.dtype.kind in 'biu':
        return weight.item()
    return _widened(weight)


def _with_python_scalars(init):
    """Has a function take NumPy scalars as parameters, as Python numbers.

    On NumPy 2, and on CuPy 14, an fp16 array times ``np.float64(1e-5)`` is no longer fp16 but
    float64 (NEP 50). A function that computes with such a parameter then returns a float64 array,
    or stops in Chainer's check that a gradient has the type of its data. Python numbers keep the
    array's type on every version.
    """

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


def _wrapping_forward(forward):
    def wrapping_forward(self, xs):
        self.padding = _wrapped(self.padding, xs[0].dtype)
        return forward(self, xs)

    return wrapping_forward


def _wrapping_concat(concat):
    return lambda arrays, padding: concat(arrays, _wrapped(padding, arrays[0].dtype))


def _wrapped(padding, dtype):
    """Has padding values that an integer type cannot hold wrap around, as before NumPy 2.

    To pad unsigned labels with -1 filled them up with the largest value (255 for uint8), which is
    how labels are marked to be ignored. NumPy 2, and CuPy 14, raise OverflowError for a Python
    integer.
    """
    if isinstance(padding, int) and dtype.kind in 'iu':
        return numpy.asarray(padding).astype(dtype)[()]
    return padding
