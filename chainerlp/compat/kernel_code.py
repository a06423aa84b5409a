"""CUDA code that names fp16 types which CuPy 14 no longer declares by itself.

Up to CuPy 13, ``cupy/carray.cuh`` brought ``half``, ``float16``, and ``atomicAdd`` for it, into
every kernel. In CuPy 14 they come with a kernel that has an fp16 argument, and ``atomicAdd`` has
become a template, which takes a value of no other type than the address says. But a product of two
``float16`` is a ``float``.

``atomicAdd(float16*, float)`` is missed by negative sampling (``functions/loss/
negative_sampling.py:233``) and hierarchical softmax (``links/loss/hierarchical_softmax.py:246``),
in fp16; ``float16`` by MultiprocessParallelUpdater (``training/updaters/
multiprocess_parallel_updater.py:324, 416``) and ``half`` by ChainerMN's batched copies
(``communicators/_memory_utility.py:290, 362``), in every type.
"""

import re

from chainerlp.compat import cupy_presence
from chainerlp.compat.replacing import replace

from chainer.backends import cuda

# No template: one would be ambiguous beside CuPy's own.
FLOAT16 = """
#include <cupy/float16.cuh>
__device__ inline float16 atomicAdd(float16* address, float value) {
    return atomicAdd(address, float16(value));
}
"""
HALF = '#include <cuda_fp16.h>\n'

_NAMES_FLOAT16 = re.compile(r'\b(float16|atomicAdd)\b')
_NAMES_HALF = re.compile(r'\bhalf\b')


def apply():
    """Has Chainer's kernels bring the declarations along, if CuPy does not."""
    if cuda.available and cupy_presence.major() >= 14:
        replace(cuda, 'elementwise', with_float16)
        replace(cuda, 'raw', with_half)


def with_float16(elementwise):
    """Builds an ``elementwise`` whose kernels know what they name; others stay as they are."""

    def elementwise_with_float16(*args, **kwargs):
        preamble = kwargs.get('preamble', '')
        # A kernel that has helped itself would find things declared twice.
        if not _NAMES_FLOAT16.search(preamble) and _names_float16(args, kwargs):
            kwargs['preamble'] = FLOAT16 + preamble
        return elementwise(*args, **kwargs)

    return elementwise_with_float16


def _names_float16(args, kwargs):
    return any(
        isinstance(code, str) and _NAMES_FLOAT16.search(code) for code in (*args, *kwargs.values())
    )


def with_half(raw):
    """Builds a ``raw`` whose kernels know ``half``, if they name it."""

    def raw_with_half(code, *args, **kwargs):
        if _NAMES_HALF.search(code):  # the header may be included twice
            code = HALF + code
        return raw(code, *args, **kwargs)

    return raw_with_half
