"""What CuPy 13 and 14 break of Chainer, and whether there is a CuPy that can be used.

Chainer is imported in functions only: :mod:`chainerlp.compat.importing`, which lets it be imported,
needs this module.
"""

import importlib.util
import re
import sys
import types
from typing import Optional

from chainerlp.compat.patching import patch, with_globals

# ChainerMN needs MPI: who has not imported it may not have it, and is not made to.
CHAINERMN_COPIES = 'chainermn.communicators._memory_utility'

# No template: one would be ambiguous beside CuPy's own.
FLOAT16_PREAMBLE = """
#include <cupy/float16.cuh>
__device__ inline float16 atomicAdd(float16* address, float value) {
    return atomicAdd(address, float16(value));
}
"""
HALF_PREAMBLE = '#include <cuda_fp16.h>\n'

_FLOAT16_NAMES = re.compile(r'\b(float16|atomicAdd)\b')
_HALF_NAME = re.compile(r'\bhalf\b')


def cupy_major():
    """Returns the major version of the CuPy that can be imported; 0 if there is none."""
    try:
        return int(importlib.import_module('cupy').__version__.split('.')[0])
    except Exception:  # as Chainer has it, backends/cuda.py:77: a library that is missing or broken
        return 0


def why_no_cupy() -> Optional[str]:
    """Says why no array can be computed on a GPU.

    Whatever goes wrong with CuPy, Chainer takes it for its absence, and goes on.

    Returns:
        str: The reason in one line; ``None`` if there is a GPU, and CuPy can use it.
    """
    from chainer.backends import cuda

    if importlib.util.find_spec('cupy') is None:
        return 'CuPy is not installed (pip install cupy-cuda12x, or cupy-cuda13x, as the driver is)'
    if not cuda.available:
        return f'CuPy cannot be used: {_first_line(cuda._resolution_error)}'
    try:
        if cuda.cupy.cuda.runtime.getDeviceCount() == 0:
            return 'there is no GPU'
        cuda.cupy.cuda.nvrtc.getVersion()  # every kernel is compiled by it
    except Exception as error:  # CUDA's, or the loader's
        return f'CuPy finds no GPU or not all of CUDA: {_first_line(error)}'
    return None


def _first_line(error):
    # CuPy wraps the loader's message in a banner of its own, and adds lists of folders to it.
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def apply():
    """Patches what CuPy breaks; each thing only if this CuPy does."""
    from chainer.backends import cuda
    from chainer.training.updaters import MultiprocessParallelUpdater

    if cuda.available:
        sum_halves_in_float32()
        if cupy_major() >= 14:
            patch(cuda, 'elementwise', with_float16)
            patch(cuda, 'raw', with_half)
    # A ChainerMN that is imported later is patched then, by the import hook.
    if CHAINERMN_COPIES in sys.modules and cupy_major() >= 14:
        patch_chainermn(sys.modules[CHAINERMN_COPIES])
    if MultiprocessParallelUpdater.available() and not _has_nccl():
        # It was a static method, which can be called on the class and on an instance.
        patch(MultiprocessParallelUpdater, 'available', lambda available: lambda *_: False)


def sum_halves_in_float32():
    """Has CuPy sum fp16 arrays with float32 in between, as its own kernels and NumPy do.

    By default its routines hand sums over contiguous axes to CUB's device reduction, whose sum of
    ``__half`` is one in fp16: of 4,096 ones it is 2,048. Reductions are still made with CUB's block
    primitives, which take the type that CuPy says.
    """
    from cupy import _core
    from cupy._core import _accelerator

    chosen = _core.get_routine_accelerators()
    if _accelerator.ACCELERATOR_CUB in chosen:
        keeps_cutensor = _accelerator.ACCELERATOR_CUTENSOR in chosen
        _core.set_routine_accelerators(['cutensor'] if keeps_cutensor else [])


def _has_nccl():
    # Chainer takes it that NCCL is there if this can be imported (training/updaters/
    # multiprocess_parallel_updater.py:15). Today it always can, only its attribute tells, and the
    # updater fails on a name that is missing instead of saying that there is no NCCL.
    from cupy.cuda import nccl

    return getattr(nccl, 'available', True)


def with_float16(elementwise):
    """Builds an ``elementwise`` that declares ``float16`` and its ``atomicAdd`` where they appear.

    Up to CuPy 13, every kernel had ``half``, ``float16``, and ``atomicAdd`` for it. In CuPy 14 only
    those with an fp16 argument have them, and ``atomicAdd`` has become a template, which takes a
    value of no other type than the address says. But a product of two ``float16`` is a ``float``.

    ``atomicAdd(float16*, float)`` is missed in fp16 by negative sampling (``functions/loss/
    negative_sampling.py:233``) and hierarchical softmax (``links/loss/hierarchical_softmax.py:
    246``), ``float16`` in every type by MultiprocessParallelUpdater (``training/updaters/
    multiprocess_parallel_updater.py:324, 416``).
    """

    def elementwise_with_float16(*args, **kwargs):
        preamble = kwargs.get('preamble', '')
        codes = [code for code in (*args, *kwargs.values()) if isinstance(code, str)]
        # A kernel that has helped itself would find things declared twice.
        if not _FLOAT16_NAMES.search(preamble) and any(map(_FLOAT16_NAMES.search, codes)):
            kwargs['preamble'] = FLOAT16_PREAMBLE + preamble
        return elementwise(*args, **kwargs)

    return elementwise_with_float16


def with_half(raw):
    """Builds a ``raw`` that declares ``half`` where it appears.

    It is missed by ChainerMN's batched copies (``communicators/_memory_utility.py:290, 362``).
    """

    def raw_with_half(code, *args, **kwargs):
        if _HALF_NAME.search(code):  # the header may be included twice
            code = HALF_PREAMBLE + code
        return raw(code, *args, **kwargs)

    return raw_with_half


def patch_chainermn(module):
    """Has ChainerMN unpack what was broadcast into parameters of another type.

    ``unpack_params`` asks for ``xp.array(v, copy=False, dtype=...)``, which on CuPy 14, as on NumPy
    2, means that nothing may be copied, and raises ValueError as soon as the type is another one.
    That is the case of every model in mixed16 with a BatchNormalization (line 211).

    Args:
        module: The module :data:`CHAINERMN_COPIES`.
    """
    # The function asks the array's module for nothing else, and Chainer for nothing but that.
    xp = types.SimpleNamespace(array=lambda array, copy, dtype: array.astype(dtype, copy=copy))
    backend = types.SimpleNamespace(get_array_module=lambda *arrays: xp)
    seen = types.SimpleNamespace(backend=backend)
    patch(module, 'unpack_params', with_globals(chainer=seen))
