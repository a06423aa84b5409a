"""The error where Chainer is missing or is another one."""

import sys

from chainerlp.compat import chainer_version

import chainer
import pytest

INSTALL = (
    'pip install --upgrade "setuptools<81" wheel && pip install --no-build-isolation chainer==7.8.1'
)


def test_the_installed_chainer_will_do():
    chainer_version.require()


def test_a_missing_chainer_is_said_in_one_line_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'chainer', None)
    with pytest.raises(ImportError) as caught:
        chainer_version.require()
    assert str(caught.value) == (
        f'chainerlp needs Chainer 7.8.1 and found none. To install it: {INSTALL}'
    )
    assert caught.value.name == 'chainer'


@pytest.mark.parametrize('version', ['7.8.0', '7.8.10', '8.0.0', '7.8.1rc1'])
def test_another_version_that_is_imported_is_refused(monkeypatch, version):
    monkeypatch.setattr(chainer, '__version__', version)
    with pytest.raises(ImportError, match=f'found {version}. To install it'):
        chainer_version.require()


def test_a_post_release_will_do(monkeypatch):
    monkeypatch.setattr(chainer, '__version__', '7.8.1.post1')
    chainer_version.require()


def make_chainer(folder, version_file):
    package = folder / 'chainer'
    package.mkdir()
    (package / '__init__.py').write_text('raise RuntimeError("it was imported")\n')
    if version_file:
        (package / '_version.py').write_text(version_file)
    return package


@pytest.mark.parametrize(
    'version_file, found',
    [
        ("__version__ = '6.7.0'\n", '6.7.0'),
        ('version = 1\n', 'an unknown version'),
        ('', 'an unknown version'),
    ],
)
def test_another_version_is_refused_before_its_import_fails(
    run_python, tmp_path, version_file, found
):
    package = make_chainer(tmp_path, version_file)
    done = run_python('import chainerlp', path=tmp_path)
    assert done.stderr.splitlines()[-1] == (
        f'ImportError: chainerlp needs Chainer 7.8.1 and found {found} in {package}. '
        f'To install it: {INSTALL}'
    )
