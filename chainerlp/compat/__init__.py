"""Lets Chainer 7.8.1 be imported and used on today's setuptools, NumPy and CuPy.

Importing this package imports Chainer, with an import hook that gives single modules of it what the
stack lacks, and then patches the few functions that today's NumPy and CuPy break. Only what is
missing or wrong is patched, and only once. NumPy stays as it is, no warning filter of ours stays
behind, and nothing is printed.

- :mod:`~chainerlp.compat.importing`: ``pkg_resources``, ``numpy.distutils``, ``numpy.sctypes``.
- :mod:`~chainerlp.compat.numpy2`: ``numpy.float`` and ``numpy.sctypes``, a list from
  ``numpy.meshgrid``, sums of fp16 in double, scalars of no type of their own, padding that wraps
  around.
- :mod:`~chainerlp.compat.cupy14`: ``float16``, ``half`` and their ``atomicAdd`` in kernels, copies
  that may convert, sums of fp16 in fp32, whether there is NCCL.

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

# From here on Chainer can be imported, and numpy2 does so at its top.
from chainerlp.compat import cupy14, numpy2  # noqa: E402
from chainerlp.compat.cupy14 import why_no_cupy  # noqa: E402

__all__ = ['why_no_cupy']

numpy2.apply()
cupy14.apply()
