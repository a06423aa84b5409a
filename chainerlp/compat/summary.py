"""The means that are logged, ``chainer.reporter.Summary``, added up in double precision.

Chainer starts from the Python numbers 0.0 and 0 and adds to them (``reporter.py:298-300``). NumPy 1
made a float64 of a Python float and an fp16 scalar; NumPy 2 makes an fp16 of them, and then 1 is
added to 2048 in vain: the mean of 4096 ones is 0.5. Squares above 65504 are inf. So every mean of
fp16 losses that LogReport or Evaluator gives is wrong, and nothing says so. CuPy makes an fp16 of a
Python float and a 0-d fp16 array whatever NumPy's version, so there this never was right.
"""

from chainerlp.compat.replacing import replace

import chainer
import numpy
from chainer import backend, reporter
from chainer.backends import cuda


def apply():
    """Replaces ``Summary.add`` if it sums in the values' own precision."""
    if _keeps_the_type_of_values() or cuda.available:
        replace(reporter.Summary, 'add', _wide)


def _keeps_the_type_of_values():
    summary = reporter.Summary()
    summary.add(numpy.float16(1))
    return numpy.result_type(summary.compute_mean()) != numpy.float64


def _wide(add):

    def add_wide(self, value, weight=1):
        value, weight = chainer.as_array(value), chainer.as_array(weight)
        with chainer.using_device(backend.get_device_from_array(value)):
            add(self, _widened(value), _counted(weight))

    return add_wide


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


def _counted(weight):
    """Returns a weight in a type that can hold sums of it.

    Integers stay integers, since Chainer refuses to resume a count that it finds to be a float, but
    become Python's: NumPy 2 adds int8 up in int8.
    """
    if isinstance(weight, (numpy.generic, numpy.ndarray)) and weight.dtype.kind in 'biu':
        return weight.item()
    return _widened(weight)
