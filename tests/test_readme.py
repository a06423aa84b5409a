"""README.md and the guide show only what runs."""

import pathlib
import pkgutil
import re
import shlex
import subprocess
import sys

from experiments import __main__ as command_line
from experiments.config import label, loading
from experiments.reports import summary
from tests.experiments import made_up_data

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
# What is written for readers; the study's page and those of results have tests of their own.
GUIDE = {
    path.stem: path.read_text(encoding='utf-8')
    for name in (
        *('get_started', 'how_it_works', 'recipes', 'policies', 'report', 'reproduce', 'gpu'),
        *('limits', 'api', 'contributing', 'index'),
    )
    for path in [ROOT / 'docs' / f'{name}.md']
}
PAGES = {'README': README, **GUIDE}
SHOWN = '\n'.join(PAGES.values())


def blocks(language, text=SHOWN):
    return re.findall(rf'^```{language}\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)


def commands():
    return [line for block in blocks('sh') for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize('page', [name for name, text in PAGES.items() if blocks('python', text)])
def test_the_python_that_a_page_shows_runs_in_the_order_shown(page, tmp_path):
    script = tmp_path / 'shown.py'
    script.write_text('\n'.join(blocks('python', PAGES[page])), encoding='utf-8')
    done = subprocess.run(
        [sys.executable, '-W', 'error::RuntimeWarning', str(script)],
        cwd=tmp_path,
        env={'PYTHONPATH': str(ROOT), 'PATH': ''},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for told in SAID.get(page, ()):
        assert told in done.stdout
    for path in tmp_path.glob('*/scales.csv'):
        assert path.read_text().startswith('iteration,layer,call,scale')
    if page == 'get_started':
        for name in ('scales.png', 'underflow.png', 'layers.png', 'histogram.png'):
            assert (tmp_path / 'plain' / name).stat().st_size > 0, name
            assert f'`{name}`' in GUIDE['report']


# What a page says that its code prints.
SAID = {
    'get_started': ['0 updates skipped', 'float8_e4m3'],
    'how_it_works': blocks('text', GUIDE['how_it_works']),
    'recipes': ['1 skipped', "'/predictor/0/W': 'float32'"],
    'policies': ['PerSample', 'LargestNearOne'],
    'report': ['/predictor/2 loses', 'headroom'],
}


def test_every_make_target_that_is_shown_is_there():
    inline = re.findall(r'`(make [^`]*)`', SHOWN)
    targets = re.findall(r'^make\s+([a-z-]+)', '\n'.join([*commands(), *inline]), re.MULTILINE)
    assert {'quickstart', 'test', 'docs', 'pictures'} <= set(targets)
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    for target in targets:
        assert re.search(rf'^{target}:', makefile, re.MULTILINE), target


def test_the_table_that_readme_shows_is_of_the_quickstarts_methods():
    (shown,) = blocks('text', README)
    header, _, *rows = shown.splitlines()
    config = loading.load(str(ROOT / 'configs' / 'digits_mlp.yaml'))
    rendered = summary.render([summary.Result(config.single(), 1.0, gradient_error=0.1)])
    assert header.split() in [line.split() for line in rendered.splitlines()]
    assert [row.split()[0] for row in rows] == [label(way) for way in config.sweep.scaling]


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
    inline = re.findall(r'`((?:mpiexec\s+-n\s+\d+\s+)?python\s+-m\s+experiments\s[^`]*)`', SHOWN)
    shown = [c for c in [*commands(), *inline] if re.search(r'python\s+-m\s+experiments\s', c)]
    split = [shlex.split(command.replace('CONFIG', 'configs/digits_mlp.yaml')) for command in shown]
    return list(map(list, dict.fromkeys(map(tuple, split))))


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
    expected = {'train', 'sweep', 'report', 'schema', 'benchmark'}
    assert expected == {arguments[2] for arguments in shown}
    shown.sort(key=lambda arguments: 'report' in arguments)  # it needs what the others leave
    for arguments in shown:
        if arguments[2] in ('train', 'sweep'):
            arguments = shortened(arguments)
        if arguments[2] == 'benchmark':
            arguments = [*arguments[:-2], '--turns', '1', '--no-plain']  # on the CPU
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
        assert name.startswith('.') or f'`{name}`' in GUIDE['report'], name


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
    named = set(re.findall(r'`(data/[^`]*)`', SHOWN))
    needed = set()
    for path in (ROOT / 'configs').glob('*.yaml'):
        config = loading.load(str(path))
        is_full = not path.stem.endswith('-small') and not path.stem.startswith('study_')
        if is_full and hasattr(config.dataset, 'folder'):
            needed |= {config.dataset.folder, getattr(config.model, 'pretrained', None)}
    assert named == needed - {None}


def test_it_names_the_exit_codes_that_help_names():
    (told,) = re.findall(r'The exit code is ((?:.|\n)*?)\n\n', SHOWN, re.MULTILINE)
    assert re.findall(r'\d+', told) == re.findall(r'\d+', command_line.EXIT_CODES)


@pytest.mark.parametrize('path', sorted(set(re.findall(r'`(configs/[^`]+)`', SHOWN))))
def test_every_config_that_it_names_is_there(path):
    assert (ROOT / path).is_file()


def test_every_name_that_it_shows_of_the_package_exists():
    for name in set(re.findall(r'chainerlp\.([\w.]+\w)', SHOWN)):
        pkgutil.resolve_name(f'chainerlp.{name}')


FILES = [*(ROOT / 'docs').rglob('*.md'), ROOT / 'README.md']


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(path):
    for target in re.findall(r'\]\(([^)\s]+)\)', path.read_text(encoding='utf-8')):
        name, _, anchor = target.partition('#')
        if name.startswith(('http', 'study/')) and path.name == 'template.md' or '://' in name:
            continue
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), target
        if anchor:
            text = found.read_text(encoding='utf-8')
            headings = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
            slugs = [re.sub(r'[^\w -]', '', h.lower()).replace(' ', '-') for h in headings]
            assert anchor in [*slugs, *re.findall(r'^\(([\w-]+)\)=$', text, re.MULTILINE)], target


def test_every_file_that_contributing_names_is_there():
    for row in re.findall(r'^\| (`.*?) \| ', GUIDE['contributing'], re.MULTILINE):
        folder = None
        for name in re.findall(r'`([\w/]+(?:\.py|\.md|/))`', row):
            if re.search('NAME|FAMILY', name):
                folder = ROOT / name.rpartition('/')[0]
                assert folder.is_dir(), name
                continue
            roots = [ROOT, ROOT / 'chainerlp', ROOT / 'experiments', ROOT / 'tests' / 'policies']
            assert any((root / name).exists() for root in roots), name
