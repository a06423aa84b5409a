"""ChainerMN's copies of parameters from the buffer that was broadcast, where types differ.

``unpack_params`` asks for ``xp.array(v, copy=False, dtype=...)``, which on CuPy 14, as on NumPy 2,
means that nothing may be copied, and raises ValueError as soon as the type is another one. That is
the case of every model in mixed16 with a BatchNormalization (``_memory_utility.py:211``).
"""

import sys

from chainerlp.compat import cupy_presence, namespaces
from chainerlp.compat.replacing import replace

# ChainerMN needs MPI: who has not imported it may not have it, and is not made to.
MODULE = 'chainermn.communicators._memory_utility'


def needed():
    """Returns whether CuPy takes ``copy=False`` for a prohibition."""
    return cupy_presence.major() >= 14


def apply():
    """Mends ChainerMN, if that has to be done, and ChainerMN has been imported already."""
    if MODULE in sys.modules and needed():
        mend(sys.modules[MODULE])


def mend(module):
    """Has ``unpack_params`` copy where it must.

    Args:
        module: The module :data:`MODULE`.
    """
    import chainer

    def get_array_module(*args):
        xp = chainer.backend.get_array_module(*args)
        return namespaces.With(xp, array=_array)

    backend = namespaces.With(chainer.backend, get_array_module=get_array_module)
    seen = namespaces.With(chainer, backend=backend)
    replace(module, 'unpack_params', namespaces.seeing(chainer=seen))


def _array(array, copy, dtype):
    return array.astype(dtype, copy=copy)
