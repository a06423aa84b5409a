"""Lets Chainer 7.8.1 be imported and used on today's setuptools, NumPy and CuPy.

Importing this package imports Chainer, lends it what the stack lacks meanwhile, and then replaces
the few places that today's NumPy and CuPy break. Only what is missing or wrong is replaced: where
Chainer works by itself, nothing is, and importing or reloading this package again changes nothing
more.
NumPy stays as it is, no warning filter of ours stays behind, and nothing is printed.

=========================  ========================================  =======================
missing or wrong today     where Chainer needs it                    stand-in
=========================  ========================================  =======================
``pkg_resources``          ``_environment_check.py:7``,              importing,
                           ``testing/helper.py:6``                   pkg_resources_stand_in
``numpy.distutils``        ``_environment_check.py:6``               importing,
                                                                     system_info_stand_in
``numpy.sctypes``          ``functions/array/as_strided.py:10,252``  importing, numpy_names
``numpy.float``            ``functions/array/resize_images.py:179``  numpy_names
a list from ``meshgrid``   ``distributions/categorical.py:74,76``    numpy_names
sums of fp16, in double    ``reporter.py:298-300``                   summary
scalars of no own type     five functions                            host_scalars
padding that wraps around  ``functions/array/pad_sequence.py:55``,   padding
                           ``dataset/convert.py:327``
``float16``, ``half`` and  four kernels, on CuPy 14                  kernel_code
their ``atomicAdd``
copies that may convert    ChainerMN's ``_memory_utility.py:211``,   importing,
                           on CuPy 14                                chainermn_copies
whether there is NCCL      ``multiprocess_parallel_updater.py:15``   nccl
=========================  ========================================  =======================

cuDNN, which Chainer can use through CuPy 13 only, is off unless ``CHAINER_CUDNN`` is set, so that
both versions compute alike. CuPy's warnings that cuDNN or NCCL is missing are not given on the
import. Where CuPy cannot be used, Chainer goes on without it; :func:`why_no_cupy` has the reason.

Known, and left as it is:

- ``Variable.debug_print`` says ``cpu`` instead of ``CPU`` (``variable.py:820``): NumPy 2's arrays
  have a ``device`` of their own. It is one word of a printout.
- ``optimizers.SMORMS3`` keeps its state in the type of its hyperparameters, if these are NumPy
  scalars: set them to Python floats.
- A function of one's own that multiplies fp16 arrays by NumPy scalars gets fp32 or fp64 on NumPy 2,
  and Chainer's type checks then say that it has a bug: use Python floats, or cast the result back.
- ``functions.sparse_matmul`` in fp16 on the CPU: SciPy has no fp16 sparse matrices.
- On NumPy 1, ``reporter.Summary`` is Chainer's own: right for values in fp16, but a weight that is
  itself an fp16 or int8 scalar can overflow the product with its value.
- A ``reporter.Summary`` whose weights are floats cannot be resumed from a snapshot, on any stack.
"""

from chainerlp.compat import importing

importing.import_chainer()

# From here on Chainer can be imported, so the stand-ins do so at their top.
from chainerlp.compat import (  # noqa: E402
    chainermn_copies,
    host_scalars,
    kernel_code,
    nccl,
    numpy_names,
    padding,
    summary,
)
from chainerlp.compat.cupy_presence import why_no_cupy  # noqa: E402

__all__ = ['why_no_cupy']

# Each replaces one thing that goes wrong at run time, if it does go wrong on this stack.
_STAND_INS = (numpy_names, summary, host_scalars, padding, kernel_code, nccl, chainermn_copies)
for _stand_in in _STAND_INS:
    _stand_in.apply()
