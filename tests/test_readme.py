"""README.md shows only what runs."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')


def blocks(language):
    return re.findall(rf'^```{language}\n(.*?)^```$', README, re.MULTILINE | re.DOTALL)


def commands():
    return [line for block in blocks('sh') for line in block.splitlines() if line.strip()]


def test_the_python_that_it_shows_runs_in_the_order_shown(tmp_path):
    script = tmp_path / 'shown.py'
    script.write_text('\n'.join(blocks('python')), encoding='utf-8')
    done = subprocess.run(
        [sys.executable, '-W', 'error::RuntimeWarning', str(script)],
        cwd=tmp_path,
        env={'PYTHONPATH': str(ROOT), 'PATH': ''},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert '0 updates skipped' in done.stdout
    assert (tmp_path / 'result' / 'scales.csv').read_text().startswith('iteration,layer,call,scale')
    for name in re.findall(r'`([a-z]+\.(?:png|npz))`', README):
        assert (tmp_path / 'result' / name).stat().st_size > 0, name


def test_every_make_target_that_it_shows_is_there():
    targets = re.findall(r'^make ([a-z-]+)', '\n'.join(commands()), re.MULTILINE)
    assert {'quickstart', 'test'} <= set(targets)
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    for target in targets:
        assert re.search(rf'^{target}:', makefile, re.MULTILINE), target


def test_every_experiment_that_it_shows_starts(tmp_path):
    shown = [c.split()[1:] for c in commands() if c.startswith('python -m experiments')]
    shown += [c.split()[1:] for c in re.findall(r'`(python -m experiments [^`]*)`', README)]
    shown.sort(key=lambda arguments: 'report' in arguments)  # it needs what the others leave
    assert shown
    for arguments in shown:
        if any(part.endswith('.yaml') for part in arguments):
            short = ['-o', 'train.epochs=1', '-o', 'sweep.seeds=[0]', '--out', str(tmp_path)]
            arguments = [*arguments, *short, '--quiet']
        arguments = [str(tmp_path) if part == 'RESULTS' else part for part in arguments]
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('path', sorted(set(re.findall(r'`(configs/[^`]*)`', README))))
def test_every_config_that_it_names_is_there(path):
    assert (ROOT / path).is_file()


def test_every_name_that_it_shows_of_the_package_exists():
    import chainerlp

    for name in set(re.findall(r'chainerlp\.([A-Za-z_.]+[A-Za-z_])', README)):
        value = chainerlp
        for part in name.split('.'):
            value = getattr(value, part)
