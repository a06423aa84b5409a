"""README.md shows only what runs."""

import pathlib
import re
import shlex
import subprocess
import sys

from experiments import __main__ as command_line
from experiments.config import loading
from tests.experiments import made_up_data

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


@pytest.fixture
def checkout(tmp_path):
    """A folder like a checkout, with made-up data and the config files that are shown."""
    for name in ('chainerlp', 'configs', 'experiments'):
        (tmp_path / name).symlink_to(ROOT / name)
    made_up_data.cifar10(tmp_path / 'data' / 'cifar-10-batches-py')
    for block in blocks('yaml'):
        name = re.match(r'# (\S+)\n', block).group(1)
        (tmp_path / name).write_text(block, encoding='utf-8')
    return tmp_path


def experiments():
    """Every command line that is shown in a block or in a sentence, split; CONFIG is a config."""
    inline = re.findall(r'`((?:mpiexec -n \d+\s+)?python -m experiments [^`]*)`', README)
    shown = [c for c in [*commands(), *inline] if 'python -m experiments' in c]
    return [shlex.split(command.replace('CONFIG', 'configs/digits_mlp.yaml')) for command in shown]


def shortened(arguments):
    """Two iterations of eight examples, of two ways of scaling; of ResNets a shallow one."""
    short = ['train.iterations=2', 'train.batch_size=8', 'report.interval=1']
    short += ['sweep.seeds=[0]', 'sweep.scaling=[{method: fp32}, {method: adaptive}]']
    if any(part.endswith('.yaml') and 'digits' not in part for part in arguments):
        short += ['dataset.train_size=16', 'dataset.test_size=8', 'model.depth=8']
    return [*arguments, *(part for override in short for part in ('-o', override)), '--quiet']


@pytest.mark.slow
def test_every_experiment_that_it_shows_runs_in_the_order_shown(checkout):
    shown = [command[1:] for command in experiments() if command[0] == 'python']
    assert {'train', 'sweep', 'report', 'schema'} <= {arguments[2] for arguments in shown}
    shown.sort(key=lambda arguments: 'report' in arguments)  # it needs what the others leave
    for arguments in shown:
        if arguments[2] in ('train', 'sweep'):
            arguments = shortened(arguments)
        arguments = ['results' if part == 'RESULTS' else part for part in arguments]
        done = subprocess.run(
            [sys.executable, *arguments], cwd=checkout, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        if '--dry-run' in arguments:
            assert 'to go' in done.stdout and not list(checkout.glob('results/*-small'))
    (result, *_) = checkout.glob('results/*-small/*/result.json')
    for path in result.parent.iterdir():
        name = re.sub(r'\d+$', 'N', path.name)
        assert name.startswith('.') or f'`{name}`' in README, name


@pytest.mark.mpi
def test_every_experiment_that_it_shows_under_mpiexec_runs(mpiexec, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    shown = [command for command in experiments() if command[0] == 'mpiexec']
    assert shown
    for _, _, count, _, *arguments in shown:
        done = mpiexec(int(count), *shortened(arguments))
        assert done.returncode == 0, done.stderr


def test_the_config_that_it_shows_is_merged_as_it_says(checkout):
    mine = loading.load(str(checkout / 'mine.yaml'))
    base = loading.load(str(ROOT / 'configs' / 'cifar10_resnet20-small.yaml'))
    assert mine.dataset == base.dataset.model_copy(update={'train_size': 1000})
    assert mine.optimizer.weight_decay == 0 < base.optimizer.weight_decay
    assert mine.train.iterations is None and mine.train.batch_size == base.train.batch_size
    assert mine.schedule.step.iterations is None and mine.schedule.step.epochs == (10, 15)
    assert [way.method for way in mine.sweep.scaling] == ['fp32', 'adaptive']
    assert mine.sweep.seeds == base.sweep.seeds


def test_it_names_the_folders_of_all_data():
    named = set(re.findall(r'`(data/[^`]*)`', README))
    needed = set()
    for path in (ROOT / 'configs').glob('*.yaml'):
        config = loading.load(str(path))
        is_full = not path.stem.endswith('-small') and not path.stem.startswith('study_')
        if is_full and hasattr(config.dataset, 'folder'):
            needed |= {config.dataset.folder, getattr(config.model, 'pretrained', None)}
    assert named == needed - {None}


def test_it_names_the_exit_codes_that_help_names():
    (told,) = re.findall(r'^.*The exit code is ((?:.|\n)*?)\n\n', README, re.MULTILINE)
    assert re.findall(r'\d+', told) == re.findall(r'\d+', command_line.EXIT_CODES)


@pytest.mark.parametrize('path', sorted(set(re.findall(r'`(configs/[^`]*)`', README))))
def test_every_config_that_it_names_is_there(path):
    assert (ROOT / path).is_file()


def test_every_name_that_it_shows_of_the_package_exists():
    import chainerlp

    for name in set(re.findall(r'chainerlp\.([A-Za-z_.]+[A-Za-z_])', README)):
        value = chainerlp
        for part in name.split('.'):
            value = getattr(value, part)
