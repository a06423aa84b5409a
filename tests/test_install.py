"""The commands by which README.md installs into an environment of one's own."""

import os
import pathlib
import re
import shutil
import subprocess
import venv

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
def test_the_commands_for_the_cpu_install_what_the_shown_script_needs(tmp_path):
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    blocks = re.findall(r'^```sh\n(.*?)^```$', readme, re.MULTILINE | re.DOTALL)
    (commands,) = [block for block in blocks if '--no-build-isolation' in block]
    checkout = tmp_path / 'a checkout'
    checkout.mkdir()
    for name in ('chainerlp', 'experiments'):
        shutil.copytree(ROOT / name, checkout / name)
    for name in ('setup.py', 'pyproject.toml'):
        shutil.copy(ROOT / name, checkout)
    venv.create(tmp_path / 'own', with_pip=True)
    environment = dict(os.environ, PATH=f'{tmp_path}/own/bin{os.pathsep}{os.environ["PATH"]}')
    for name in ('PYTHONPATH', 'PYTHONHOME', 'VIRTUAL_ENV'):
        environment.pop(name, None)
    subprocess.run(['sh', '-e', '-c', commands], cwd=checkout, env=environment, check=True)
    (script,) = re.findall(r'^```python\n(import chainerlp.*?)^```$', readme, re.M | re.S)
    subprocess.run(['python', '-c', script], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / 'result' / 'scales.csv').is_file()
    # From another folder, and without what the experiments need besides.
    command = ['chainerlp-experiments', '--help']
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith('the experiments need ')


@pytest.mark.skipif(not shutil.which('make'), reason='make is not installed')
def test_make_data_without_samples_says_what_it_needs_and_leaves_nothing(tmp_path):
    shutil.copy(ROOT / 'Makefile', tmp_path)
    done = subprocess.run(['make', 'data'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith('make data needs the samples ../shared/data')
    assert os.listdir(tmp_path) == ['Makefile']
