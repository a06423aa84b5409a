"""What one installs into an environment of one's own: the checkout, or a package of it."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
import zipfile

import chainerlp

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
FOLDERS = ('chainerlp', 'configs', 'docs', 'examples', 'experiments', 'tests')
FILES = ('CHANGELOG.md', 'CITATION.cff', 'LICENSE', 'MANIFEST.in', 'Makefile', 'README.md')
FILES += ('pyproject.toml', 'setup.py')


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    """A copy, so that what is built leaves nothing behind."""
    checkout = tmp_path_factory.mktemp('install') / 'a checkout'
    checkout.mkdir()
    for name in FOLDERS:
        shutil.copytree(
            ROOT / name, checkout / name, ignore=shutil.ignore_patterns('__pycache__', '_build')
        )
    for name in FILES:
        shutil.copy(ROOT / name, checkout)
    return checkout


@pytest.fixture(scope='module')
def packages(checkout):
    """The sdist of the checkout, and the wheel that is built of the sdist, by their suffixes."""
    build = [sys.executable, '-m', 'build', '--no-isolation', '--outdir', 'dist']
    subprocess.run(build, cwd=checkout, check=True, capture_output=True)
    return {path.suffix: path for path in (checkout / 'dist').iterdir()}


@pytest.fixture
def run(tmp_path):
    """Runs a command in an empty environment of an interpreter, in the test's folder or another."""

    def run(python, command, cwd=tmp_path, check=True, **kwargs):
        own = dict(os.environ, PATH=f'{tmp_path}/own/bin{os.pathsep}{os.environ["PATH"]}')
        for name in ('PYTHONPATH', 'PYTHONHOME', 'VIRTUAL_ENV'):
            own.pop(name, None)
        if not (tmp_path / 'own').exists():
            # pyenv has several interpreters, and shows the one that this asks for.
            choice = dict(own, PYENV_VERSION=python.removeprefix('python'))
            subprocess.run([python, '-m', 'venv', 'own'], cwd=tmp_path, env=choice, check=True)
        return subprocess.run(command, cwd=cwd, env=own, check=check, **kwargs)

    return run


def commands_for(what):
    """Returns the commands for the CPU that README.md shows, to install something."""
    blocks = re.findall(r'^```sh\n(.*?)^```$', README, re.MULTILINE | re.DOTALL)
    (commands,) = [block for block in blocks if '--no-build-isolation' in block]
    assert commands.endswith(' install .\n')
    return ['sh', '-e', '-c', commands.replace(' install .\n', f" install '{what}'\n")]


def attached():
    """Returns the first script that README.md shows."""
    (script,) = re.findall(r'^```python\n(import chainerlp.*?)^```$', README, re.M | re.S)
    return ['python', '-W', 'error::RuntimeWarning', '-c', script]


def test_the_changelog_begins_with_the_version():
    changes = (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')
    assert re.search(r'^## \[(.*)\]', changes, re.MULTILINE).group(1) == chainerlp.__version__


@pytest.mark.slow
def test_the_commands_for_the_cpu_install_what_the_shown_script_needs(run, checkout, tmp_path):
    run(sys.executable, commands_for('.'), cwd=checkout)
    run(sys.executable, attached())
    assert (tmp_path / 'result' / 'scales.csv').is_file()
    # From another folder, and without what the experiments need besides.
    command = ['chainerlp-experiments', '--help']
    done = run(sys.executable, command, check=False, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith('the experiments need ')


@pytest.mark.slow
@pytest.mark.parametrize('python, suffix', [('python3.9', '.whl'), ('python3.13', '.gz')])
def test_a_package_installs_and_runs_the_shown_script(run, packages, tmp_path, python, suffix):
    if shutil.which(python) is None:
        pytest.skip(f'there is no {python}')
    run(python, commands_for(packages[suffix]))
    run(python, attached())
    assert (tmp_path / 'result' / 'scales.csv').is_file()
    check_types(tmp_path)


def check_types(folder):
    """Checks that a user's type checker knows the types of what is installed."""
    (folder / 'users.py').write_text(
        textwrap.dedent("""
            import chainer
            import chainerlp
            from chainer import optimizers

            adam = optimizers.Adam()
            model = chainerlp.convert(chainer.Chain(), chainerlp.policies.PerSample())
            model.init_scope()
            chainerlp.AdaptiveLossScaling(adam, chainerlp.policies.Fixed(128)).setup(model).update()
            chainerlp.extensions.ScaleReport(trigger=(10, 'iteration'), layers=['/fc*'])

            chainerlp.convert(model, 'adaptive')
            chainerlp.AdaptiveLossScaling(adam, initial_scale=None)
            chainerlp.policies.Adaptive(interval=1.5)
            chainerlp.extensions.ScaleReport(trigger=(10, 10))
        """).lstrip()
    )
    mypy = [sys.executable, '-m', 'mypy', '--python-executable', 'own/bin/python', 'users.py']
    found = subprocess.run(mypy, cwd=folder, capture_output=True, text=True).stdout
    assert re.findall(r'^users.py:(\d+): error: .*\[(.*)\]$', found, re.MULTILINE) == [
        (line, 'arg-type') for line in ('11', '12', '13', '14')
    ], found


@pytest.mark.slow
def test_the_sdist_holds_the_checkout_and_the_wheel_the_package(checkout, packages):
    files = {
        path.relative_to(checkout).as_posix()
        for path in checkout.rglob('*')
        if path.is_file() and path.relative_to(checkout).parts[0] in FOLDERS + FILES
    }
    with tarfile.open(packages['.gz']) as sdist:
        in_sdist = {name.partition('/')[2] for name in sdist.getnames()}
    assert files <= in_sdist
    of_package = {
        name for name in files if re.match(r'(chainerlp|experiments)/.*\.(py|typed)$', name)
    }
    assert 'chainerlp/py.typed' in of_package
    assert of_package <= set(zipfile.ZipFile(packages['.whl']).namelist())


@pytest.mark.skipif(not shutil.which('make'), reason='make is not installed')
def test_make_data_without_samples_says_what_it_needs_and_leaves_nothing(tmp_path):
    shutil.copy(ROOT / 'Makefile', tmp_path)
    done = subprocess.run(['make', 'data'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith('make data needs the samples ../shared/data')
    assert os.listdir(tmp_path) == ['Makefile']
