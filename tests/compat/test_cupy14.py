"""Why CuPy cannot be used is said in one line; what CuPy 14 breaks is patched, and no more."""

import importlib.util
import sys
import types

from chainerlp import compat
from chainerlp.compat import cupy14

import chainer
import numpy
import pytest
from chainer.backends import cuda
from chainer.training import updaters

BANNER = """
from . import _version
__version__ = _version.__version__
try:
    raise ImportError('libcuda.so.1: cannot open shared object file')
except ImportError as error:
    raise ImportError('''
=====
Failed to import CuPy. A long story follows.
=====
''') from error
"""


def package(folder, version, code=''):
    """Writes a CuPy of that version, from which Chainer cannot import what it needs."""
    (folder / 'cupy').mkdir()
    (folder / 'cupy' / '_version.py').write_text(f'__version__ = {version!r}')
    (folder / 'cupy' / '__init__.py').write_text(code or 'from cupy._version import __version__')
    return folder


REASON = """
    import chainerlp, chainer
    from chainerlp.compat import cupy14
    facts = {
        'major': cupy14.cupy_major(), 'available': chainer.backends.cuda.available,
        'reason': chainerlp.compat.why_no_cupy()}
"""


@pytest.mark.skipif(importlib.util.find_spec('cupy') is not None, reason='CuPy is installed')
def test_without_cupy_the_reason_says_so():
    assert cupy14.cupy_major() == 0
    assert compat.why_no_cupy().startswith('CuPy is not installed (pip install cupy-cuda12x, or')


def test_a_cupy_that_lacks_a_library_is_named_with_it(facts_of, tmp_path):
    facts = facts_of(REASON, path=package(tmp_path, '14.2.0'))
    assert facts['major'] == 14
    assert not facts['available']
    assert facts['reason'].startswith("CuPy cannot be used: cannot import name 'cuda' from 'cupy'")


def test_of_a_cupy_that_cannot_be_imported_the_cause_is_told(facts_of, tmp_path):
    assert facts_of(REASON, path=package(tmp_path, '13.6.0', BANNER)) == {
        'major': 0,
        'available': False,
        'reason': 'CuPy cannot be used: libcuda.so.1: cannot open shared object file',
    }


@pytest.fixture
def driver(monkeypatch):
    """Makes Chainer believe in a CuPy; its number of GPUs, and NVRTC, are to be set."""
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 1)
    nvrtc = types.SimpleNamespace(getVersion=lambda: (13, 0))
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime, nvrtc=nvrtc))
    monkeypatch.setattr(cuda, 'available', True)
    monkeypatch.setattr(cuda, 'cupy', cupy)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: object())
    return cupy.cuda


def failing(*lines):
    def fail():
        raise RuntimeError('\n'.join(lines))

    return fail


def test_with_a_gpu_there_is_no_reason(driver):
    assert compat.why_no_cupy() is None


def test_no_gpu_no_driver_and_no_compiler_are_told(driver):
    driver.runtime.getDeviceCount = lambda: 0
    assert compat.why_no_cupy() == 'there is no GPU'
    driver.runtime.getDeviceCount = failing('', 'cudaErrorInsufficientDriver: too old', 'more')
    assert compat.why_no_cupy() == (
        'CuPy finds no GPU or not all of CUDA: cudaErrorInsufficientDriver: too old'
    )
    driver.runtime.getDeviceCount = lambda: 1
    driver.nvrtc.getVersion = failing()
    assert compat.why_no_cupy() == 'CuPy finds no GPU or not all of CUDA: RuntimeError'


def test_chainer_without_cupy_trains_on_the_cpu(facts_of, tmp_path):
    facts = facts_of(
        """
        import chainerlp, chainer, numpy
        import chainer.functions as F, chainer.links as L
        model = L.Linear(3, 1)
        optimizer = chainerlp.AdaptiveLossScaling(chainer.optimizers.SGD(0.1)).setup(model)
        x = numpy.eye(3, dtype='f')
        def loss():
            return F.mean((model(x) - 1) ** 2)
        facts = {'first': loss().item()}
        for _ in range(50):
            optimizer.update(loss)
        facts['last'] = loss().item()
    """,
        path=package(tmp_path, '14.2.0'),
    )
    assert facts['last'] < facts['first'] / 10


@pytest.mark.parametrize(
    'setting, seen, left', [(None, '0', None), ('1', '1', '1'), ('0', '0', '0')]
)
def test_cudnn_is_off_unless_the_user_says_otherwise(
    facts_of, tmp_path, monkeypatch, setting, seen, left
):
    monkeypatch.delenv('CHAINER_CUDNN', raising=False)
    if setting is not None:
        monkeypatch.setenv('CHAINER_CUDNN', setting)
    # What Chainer sees on its import, as CuPy is imported by it; and what stays behind.
    code = 'import os\nseen.append(os.environ.get("CHAINER_CUDNN"))\nraise ImportError'
    package(tmp_path, '13.6.0', 'from cupy_seen import seen\n' + code)
    (tmp_path / 'cupy_seen.py').write_text('seen = []')
    facts = facts_of(
        """
        import os
        import cupy_seen, chainerlp
        facts = {'seen': cupy_seen.seen[-1], 'left': os.environ.get('CHAINER_CUDNN')}
    """,
        path=tmp_path,
    )
    assert facts == {'seen': seen, 'left': left}


def declared(*args, **kwargs):
    return args, kwargs


elementwise = cupy14.with_float16(declared)
raw = cupy14.with_half(declared)


@pytest.mark.parametrize(
    'args, kwargs',
    [
        (('raw T a', 'T y', 'float16 *p = reinterpret_cast<float16 *>(a[i]); y = *p;', 'n'), {}),
        (('T x', 'raw T y', 'atomicAdd(&y[0], x)', 'name'), {}),
        (('float16 x', 'T y', 'y = x', 'name'), {}),
        (('T x', 'T y', 'y = z', 'name'), {'loop_prep': 'float16 z = x[0];'}),
        (('T x', 'raw T y'), {'operation': 'atomicAdd(&y[0], f(x))', 'preamble': 'T f(T x);'}),
    ],
)
def test_kernels_that_name_float16_or_atomic_addition_get_both(args, kwargs):
    preamble = cupy14.FLOAT16_PREAMBLE + kwargs.get('preamble', '')
    assert elementwise(*args, **kwargs) == (args, {**kwargs, 'preamble': preamble})
    assert cupy14.FLOAT16_PREAMBLE.count('#include') == 1


@pytest.mark.parametrize(
    'args, kwargs',
    [
        (('T x', 'T y', 'y = x', 'name'), {}),
        (('T x', 'T y', 'y = f(x)', 'name'), {'preamble': 'T f(T x);', 'reduce_dims': False}),
        (('T x', 'T y', 'y = bfloat16(x) + my_float16(x)', 'name'), {}),
        (
            ('T x', 'raw T y', 'atomicAdd(&y[0], x)', 'name'),
            {'preamble': '#include <cupy/float16.cuh>'},
        ),
    ],
)
def test_other_kernels_stay_as_they_are(args, kwargs):
    assert elementwise(*args, **kwargs) == (args, kwargs)


def test_raw_code_that_names_half_gets_it():
    code = 'extern "C" __global__ void f(half* x) {}'
    assert raw(code, 'f') == ((cupy14.HALF_PREAMBLE + code, 'f'), {})
    assert raw(code=code, name='f', options=('-G',)) == (
        (cupy14.HALF_PREAMBLE + code,),
        {'name': 'f', 'options': ('-G',)},
    )
    code = 'extern "C" __global__ void f(float* half_of_it) {}'
    assert raw(code, 'f') == ((code, 'f'), {})


# As in cupy/_core/_accelerator.pyx.
CUB, CUTENSOR = 1, 2


def of_cupy(monkeypatch, accelerators):
    """Puts what chooses CuPy's routines for sums in the place of CuPy, which may be missing."""
    routines = types.ModuleType('cupy._core')
    routines.accelerators = accelerators
    routines.get_routine_accelerators = lambda: routines.accelerators
    routines.set_routine_accelerators = lambda names: setattr(routines, 'accelerators', names)
    routines._accelerator = types.ModuleType('cupy._core._accelerator')
    routines._accelerator.ACCELERATOR_CUB = CUB
    routines._accelerator.ACCELERATOR_CUTENSOR = CUTENSOR
    package = types.ModuleType('cupy')
    package._core = routines
    for module in (package, routines, routines._accelerator):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return routines


@pytest.mark.parametrize(
    'before, after',
    [([CUB], []), ([CUB, CUTENSOR], ['cutensor']), ([CUTENSOR], [CUTENSOR]), ([], [])],
)
def test_no_sum_of_halves_is_left_to_cub(monkeypatch, before, after):
    routines = of_cupy(monkeypatch, before)
    cupy14.sum_halves_in_float32()
    assert routines.accelerators == after


@pytest.mark.parametrize('major, patched', [(13, False), (14, True), (15, True)])
def test_kernels_are_patched_from_cupy_14_on(monkeypatch, major, patched):
    monkeypatch.setattr(cuda, 'elementwise', declared)
    monkeypatch.setattr(cuda, 'raw', declared)
    monkeypatch.setattr(cuda, 'available', True)
    monkeypatch.setattr('chainerlp.compat.cupy14.cupy_major', lambda: major)
    routines = of_cupy(monkeypatch, [CUB])
    for _ in range(2):
        cupy14.apply()
    assert routines.accelerators == []
    assert ((cuda.elementwise, cuda.raw) != (declared, declared)) == patched
    # ChainerMN calls it by this name.
    assert chainer.cuda.raw is cuda.raw
    _, kwargs = cuda.elementwise('float16 x', 'T y', 'y = x', 'name')
    assert kwargs == ({'preamble': cupy14.FLOAT16_PREAMBLE} if patched else {})


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
        cupy14.patch_chainermn(module)
    module.unpack_params(params, 'data', buffer, numpy.float32, False)
    assert [param.array.tolist() for param in params] == [[0.5, 0.25], [1.5, 2.0**-20]]
    assert [param.dtype for param in params] == ['float16', 'float32']
    assert module.unpack_params.__wrapped__ is unpack_params


@pytest.mark.parametrize('major, patched', [(0, False), (13, False), (14, True)])
def test_chainermn_is_patched_where_it_was_imported_before(monkeypatch, module, major, patched):
    monkeypatch.setattr('chainerlp.compat.cupy14.cupy_major', lambda: major)
    monkeypatch.setitem(sys.modules, cupy14.CHAINERMN_COPIES, module)
    cupy14.apply()
    assert (module.unpack_params is not unpack_params) == patched


CHAINERMN = """
    import sys
    import chainerlp, chainer
    imported = [name in sys.modules for name in ('chainermn', 'mpi4py')]
    import mpi4py
    mpi4py.rc.initialize = mpi4py.rc.finalize = False  # or to import ChainerMN would start MPI
    from chainermn.communicators import _memory_utility
    facts = {'imported': imported, 'patched': hasattr(_memory_utility.unpack_params, '__wrapped__')}
"""


@pytest.mark.parametrize('version, patched', [('13.6.0', False), ('14.2.0', True)])
def test_chainermn_is_patched_when_it_is_imported_and_not_imported_for_it(
    facts_of, tmp_path, version, patched
):
    pytest.importorskip('mpi4py')
    facts = facts_of(CHAINERMN, path=package(tmp_path, version))
    assert facts == {'imported': [False, False], 'patched': patched}


@pytest.fixture
def set_nccl(monkeypatch):
    """Makes Chainer believe that it has imported CuPy's module for NCCL."""

    def set_it(**attributes):
        cuda = types.ModuleType('cupy.cuda')
        cuda.nccl = types.SimpleNamespace(**attributes)
        monkeypatch.setitem(sys.modules, 'cupy', types.ModuleType('cupy'))
        monkeypatch.setitem(sys.modules, 'cupy.cuda', cuda)
        monkeypatch.setattr(
            updaters.MultiprocessParallelUpdater, 'available', staticmethod(lambda: True)
        )

    return set_it


def test_without_nccl_the_updater_says_so(set_nccl):
    set_nccl(available=False)
    for _ in range(2):
        cupy14.apply()
    assert updaters.MultiprocessParallelUpdater.available() is False
    with pytest.raises(Exception, match='NCCL is not enabled'):
        updaters.MultiprocessParallelUpdater([], None, devices=[])


@pytest.mark.parametrize('attributes', [{'available': True}, {}])
def test_with_nccl_the_updater_can_be_used(set_nccl, attributes):
    set_nccl(**attributes)
    cupy14.apply()
    assert updaters.MultiprocessParallelUpdater.available() is True


@pytest.mark.parametrize('library', ['nccl', 'cudnn'])
def test_an_import_does_not_warn_of_a_library_that_is_missing(run_python, tmp_path, library):
    package(tmp_path, '14.2.0')
    (tmp_path / 'cupy' / 'cuda').mkdir()
    (tmp_path / 'cupy' / 'cuda' / '__init__.py').write_text('')
    (tmp_path / 'cupy' / 'cuda' / 'nccl.py').write_text(
        'import warnings\n'
        'available = False\n'
        f'warnings.warn("\\n{library} library could not be loaded.\\n\\nReason: ImportError")\n'
    )
    code = """
        import chainerlp
        from chainer.training.updaters import MultiprocessParallelUpdater
        print(MultiprocessParallelUpdater.available())
    """
    done = run_python(code, '-W', 'always', path=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, 'False\n', '')
