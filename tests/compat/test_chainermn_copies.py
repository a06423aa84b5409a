"""ChainerMN unpacks what was broadcast into parameters of another type, where CuPy 14 refuses."""

import sys
import types

from chainerlp.compat import chainermn_copies

import chainer
import numpy
import pytest


class Buffer:
    """As ChainerMN's DeviceMemory, on the host."""

    def __init__(self, values, dtype):
        self.memory = numpy.asarray(values, dtype).tobytes()

    def to_device(self, array, size, offset, stream):
        array.ravel()[...] = numpy.frombuffer(self.memory[offset : offset + size], array.dtype)


class Strict:
    """The namespace of an array library that never copies with ``copy=False``."""

    @staticmethod
    def array(value, copy, dtype):
        if not copy and value.dtype != dtype:
            raise ValueError('Unable to avoid copy while creating an array as requested.')
        return value.astype(dtype)


def unpack_params(params, attr_name, buffer, transfer_dtype, zero_fill, stream=None):
    # As much of ChainerMN's as matters here: `_memory_utility.py:211` on.
    xp = chainer.backend.get_array_module(getattr(params[0], attr_name))
    offset = 0
    for param in params:
        v = getattr(param, attr_name)
        grad_dtype = v.dtype
        if grad_dtype != transfer_dtype:
            v = xp.array(v, copy=False, dtype=transfer_dtype)
        buffer.to_device(v, v.nbytes, offset, stream)
        offset += v.nbytes
        if grad_dtype != transfer_dtype:
            getattr(param, attr_name)[...] = v.astype(grad_dtype)


@pytest.fixture
def module(monkeypatch):
    """A module with that function, on an array library that refuses."""
    monkeypatch.setattr(chainer.backend, 'get_array_module', lambda *args: Strict)
    return types.SimpleNamespace(unpack_params=unpack_params)


def test_parameters_of_two_types_are_unpacked(module):
    params = [chainer.Parameter(numpy.zeros(2, dtype)) for dtype in ('e', 'f')]
    buffer = Buffer([0.5, 0.25, 1.5, 2.0**-20], 'f')
    with pytest.raises(ValueError, match='Unable to avoid copy'):
        module.unpack_params(params, 'data', buffer, numpy.float32, False)
    for _ in range(2):
        chainermn_copies.mend(module)
    module.unpack_params(params, 'data', buffer, numpy.float32, False)
    assert [param.array.tolist() for param in params] == [[0.5, 0.25], [1.5, 2.0**-20]]
    assert [param.dtype for param in params] == ['float16', 'float32']
    assert module.unpack_params.__wrapped__ is unpack_params


@pytest.mark.parametrize('major, mended', [(0, False), (13, False), (14, True)])
def test_chainermn_is_mended_where_it_was_imported_before(monkeypatch, module, major, mended):
    monkeypatch.setattr('chainerlp.compat.cupy_presence.major', lambda: major)
    monkeypatch.setitem(sys.modules, chainermn_copies.MODULE, module)
    chainermn_copies.apply()
    assert (module.unpack_params is not unpack_params) == mended


IMPORTS = """
    import sys
    import chainerlp, chainer
    imported = [name in sys.modules for name in ('chainermn', 'mpi4py')]
    from chainermn.communicators import _memory_utility
    facts = {'imported': imported, 'mended': hasattr(_memory_utility.unpack_params, '__wrapped__')}
"""


@pytest.mark.parametrize('version, mended', [('13.6.0', False), ('14.2.0', True)])
def test_chainermn_is_mended_when_it_is_imported_and_not_imported_for_it(
    facts_of, tmp_path, version, mended
):
    pytest.importorskip('mpi4py')
    (tmp_path / 'cupy').mkdir()
    (tmp_path / 'cupy' / '__init__.py').write_text(f'__version__ = {version!r}')
    # To import ChainerMN would start MPI.
    code = 'import mpi4py; mpi4py.rc.initialize = mpi4py.rc.finalize = False\n'
    facts = facts_of(
        IMPORTS.replace('    from chainermn', f'    {code}    from chainermn'), path=tmp_path
    )
    assert facts == {'imported': [False, False], 'mended': mended}
