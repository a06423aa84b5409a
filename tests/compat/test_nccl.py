"""MultiprocessParallelUpdater says whether it can be used."""

import sys
import types

from chainerlp.compat import nccl

import pytest
from chainer.training import updaters


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


def test_without_the_library_it_cannot(set_nccl):
    set_nccl(available=False)
    for _ in range(2):
        nccl.apply()
    assert updaters.MultiprocessParallelUpdater.available() is False
    with pytest.raises(Exception, match='NCCL is not enabled'):
        updaters.MultiprocessParallelUpdater([], None, devices=[])


@pytest.mark.parametrize('attributes', [{'available': True}, {}])
def test_with_it_it_can(set_nccl, attributes):
    set_nccl(**attributes)
    nccl.apply()
    assert updaters.MultiprocessParallelUpdater.available() is True


@pytest.mark.parametrize('library', ['nccl', 'cudnn'])
def test_an_import_does_not_warn_of_a_library_that_is_missing(run_python, tmp_path, library):
    (tmp_path / 'cupy' / 'cuda').mkdir(parents=True)
    (tmp_path / 'cupy' / '__init__.py').write_text('__version__ = "14.2.0"')
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
