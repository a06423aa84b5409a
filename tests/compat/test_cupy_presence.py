"""Who asks for a GPU that is not there gets the reason in one line; who does not, nothing."""

import importlib.util
import types

from chainerlp import compat
from chainerlp.compat import cupy_presence

import chainer
import pytest
from chainer.backends import cuda

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
    from chainerlp.compat import cupy_presence
    facts = {
        'major': cupy_presence.major(), 'available': chainer.backends.cuda.available,
        'reason': chainerlp.compat.why_no_cupy()}
"""


@pytest.mark.skipif(importlib.util.find_spec('cupy') is not None, reason='CuPy is installed')
def test_without_cupy_it_says_so():
    assert cupy_presence.major() == 0
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

    def version():
        return (13, 0)

    runtime = types.SimpleNamespace(getDeviceCount=lambda: 1)
    nvrtc = types.SimpleNamespace(getVersion=version)
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


def test_chainer_without_it_trains_on_the_cpu(facts_of, tmp_path):
    facts = facts_of(
        """
        import chainerlp, chainer, numpy
        import chainer.functions as F, chainer.links as L
        model = L.Linear(3, 1)
        optimizer = chainerlp.AdaptiveLossScaling(chainer.optimizers.SGD(0.1)).setup(model)
        x = numpy.eye(3, dtype='f')
        losses = []
        for _ in range(50):
            optimizer.update(lambda: F.mean((model(x) - 1) ** 2))
            losses.append(F.mean((model(x) - 1) ** 2).item())
        facts = {'first': losses[0], 'last': losses[-1]}
    """,
        path=package(tmp_path, '14.2.0'),
    )
    assert facts['last'] < facts['first'] / 10


@pytest.mark.parametrize(
    'setting, disabled, left',
    [(None, '0', None), ('1', '1', '1'), ('0', '0', '0')],
)
def test_cudnn_is_off_unless_the_user_says_otherwise(
    facts_of, tmp_path, monkeypatch, setting, disabled, left
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
    assert facts == {'seen': disabled, 'left': left}


def test_a_device_that_is_not_there_is_an_error_of_one_line():
    from experiments.config.errors import ConfigError
    from experiments.run import devices

    assert devices.get('@numpy') == devices.get('-1') == chainer.get_device('@numpy')
    reason = compat.why_no_cupy()
    if reason is None:
        pytest.skip('there is a GPU')
    with pytest.raises(ConfigError) as error:
        devices.get('@cupy:0')
    assert str(error.value) == (
        f'--device @cupy:0: {reason}; allowed: @numpy, or @cupy:0 with CuPy and a GPU'
    )
    with pytest.raises(ConfigError, match='^--device nowhere: .*; allowed: @numpy, or @cupy:0'):
        devices.get('nowhere')
