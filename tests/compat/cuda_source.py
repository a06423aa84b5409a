"""The CUDA source of Chainer's kernels, as CuPy would compile it, without a device.

A kernel's source is made from its declaration and the types of its arguments. So Chainer's own code
is run with NumPy's arrays in the place of CuPy's; its kernels compute nothing, and leave their
sources behind. What CuPy keeps to itself is used here, of the versions that setup.py allows.
"""

import os

from chainerlp.compat import namespaces

import cupy
import numpy
from cupy._core import _kernel, core

INCLUDE = os.path.join(os.path.dirname(core.__file__), 'include')
_HEADERS = ''.join(f'#include <{header}>\n' for header in core._cupy_header_list)
_NDARRAY, _INDEXER, _SCALAR = 1, 2, 3  # _kernel.pxd: _ArgKind


def options():
    """Returns what CuPy compiles with; without CUDA's own headers, if it finds none."""
    return (*core.assemble_cupy_compiler_options(()), '-ftz=true')


class Recorder:
    """Stands in for CuPy in ``chainer.backends.cuda``.

    Attributes:
        cupy: The stand-in: NumPy with CuPy's classes of kernels.
        sources (dict): The sources of the kernels that have been called, by name.
    """

    def __init__(self):
        self.sources = {}
        self.cupy = namespaces.With(
            numpy,
            __version__=cupy.__version__,
            ElementwiseKernel=self._elementwise,
            RawKernel=self._raw,
            ndarray=numpy.ndarray,
        )

    def _raw(self, code, name):
        self.sources[name] = code

    def _elementwise(self, *args, **kwargs):
        kernel = cupy.ElementwiseKernel(*args, **kwargs)

        def call(*args, size=None):
            dtypes = tuple(getattr(arg, 'dtype', None) for arg in args)
            _, out_types, type_map = kernel._decide_params_type(
                dtypes[: kernel.nin], dtypes[kernel.nin :]
            )
            outs = list(args[kernel.nin :])
            if not outs:
                shapes = [
                    numpy.shape(arg) for arg, param in zip(args, kernel.in_params) if not param.raw
                ]
                shape = (size,) if size else numpy.broadcast_shapes(*shapes)
                outs = [numpy.zeros(shape, dtype) for dtype in out_types]
            self.sources[kernel.name] = _source(kernel, [*args[: kernel.nin], *outs], type_map)
            return outs[0] if outs else None

        return call


def _source(kernel, args, type_map):
    infos = [_info(arg, param) for arg, param in zip(args, kernel.params)]
    infos.append(_kernel._ArgInfo(_INDEXER, type(None), None, 1, True, True))
    return _HEADERS + _kernel._get_elementwise_kernel_code(
        tuple(infos), type_map, kernel.params, kernel.operation, kernel.name, kernel.preamble,
        **kernel.kwargs,
    )  # fmt: skip


def _info(arg, param):
    if isinstance(arg, numpy.ndarray):
        dtype = numpy.dtype(arg.dtype).type
        return _kernel._ArgInfo(
            _NDARRAY, cupy.ndarray, dtype, arg.ndim if param.raw else 1, True, True
        )
    return _kernel._ArgInfo(_SCALAR, type(arg), numpy.dtype(param.dtype or 'i').type, 0, True, True)
