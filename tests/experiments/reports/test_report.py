"""A report reads the folders of any runs, whole, half-finished or broken."""

import json
import pathlib
import re
import shutil

from experiments.__main__ import main
from experiments.reports import run_folder

import pytest


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """Two whole runs of four iterations."""
    folder = tmp_path_factory.mktemp('results')
    config = folder / 'tiny.yaml'
    config.write_text(
        'name: tiny\n'
        'dataset: {name: digits}\n'
        'model: {name: mlp, layers: 3, units: 16}\n'
        'optimizer: {name: momentum_sgd, lr: 0.05}\n'
        'train: {batch_size: 128, epochs: 1, max_iterations: 4}\n'
        'sweep: {seeds: [0], scaling: [{method: fp32}, {method: adaptive}]}\n',
        encoding='utf-8',
    )
    assert main(['sweep', str(config), '--out', str(folder), '--quiet']) == 0
    return folder / 'tiny'


@pytest.fixture
def copied(results, tmp_path):
    """The same runs, in a folder that may be damaged."""
    return pathlib.Path(shutil.copytree(results, tmp_path / 'tiny'))


def report(*arguments):
    return main(['report', *map(str, arguments)])


def test_a_report_has_a_row_a_run_and_pictures_that_are_there(copied, capsys):
    assert report(copied) == 0
    path = pathlib.Path(capsys.readouterr().out.strip())
    assert path == copied / 'report.md'
    text = path.read_text(encoding='utf-8')
    for run in ('fp32-seed=0', 'adaptive-seed=0'):
        result = json.loads((copied / run / 'result.json').read_text())
        (row,) = re.findall(rf'^\| `tiny/{run}` \| ([0-9.]+) \|.* \|$', text, re.MULTILINE)[:1]
        assert float(row) == pytest.approx(float(result['accuracy']), abs=5e-5)
    pictures = re.findall(r'\]\(<([^>]+)>\)', text)
    assert len(pictures) == 1 + 2 * 3  # the curves, and three of each run
    assert all((copied / picture).read_bytes().startswith(b'\x89PNG') for picture in pictures)


def test_what_the_logs_have_besides_has_columns(copied, capsys):
    path = copied / 'fp32-seed=0' / 'log'
    log = json.loads(path.read_text())
    log[-1]['validation/main/accuracy_top5'] = 0.98765
    path.write_text(json.dumps(log))
    assert report(copied) == 0
    header, _, *rows = re.findall(r'^\|.*\|$', (copied / 'report.md').read_text(), re.MULTILINE)
    assert header.endswith('| ms / iteration | top-5 accuracy | examples / s |')
    fp32 = next(row for row in rows if 'fp32-seed=0' in row)
    speed = f'{log[-1]["data/images_per_sec"]:.4g}'
    assert fp32.endswith(f'| 0.9877 | {speed} |')


def test_every_metric_has_a_column(copied, capsys):
    path = copied / 'fp32-seed=0' / 'result.json'
    result = json.loads(path.read_text())
    result.update(metric='miou', miou=0.5)
    path.write_text(json.dumps(result))
    report(copied)
    text = (copied / 'report.md').read_text(encoding='utf-8')
    assert '| run | accuracy | miou | loss |' in text
    assert re.search(r'^\| `tiny/fp32-seed=0` \|  \| 0.5000 \| ', text, re.MULTILINE)
    assert re.search(r'^\| `tiny/adaptive-seed=0` \| 0\.\d{4} \|  \| ', text, re.MULTILINE)


def test_the_configs_differences_are_shown_and_nothing_else(copied):
    report(copied)
    text = (copied / 'report.md').read_text(encoding='utf-8')
    assert '`scaling.method`' in text and '`train.batch_size`' not in text


def test_a_page_holds_its_pictures(copied, tmp_path, capsys):
    assert report(copied, '--html', '--out', tmp_path / 'out') == 0
    path = pathlib.Path(capsys.readouterr().out.strip())
    page = path.read_text(encoding='utf-8')
    assert path == tmp_path / 'out' / 'report.html'
    assert page.count('src="data:image/png;base64,') == 7
    assert 'src="report' not in page and '<table>' in page
    assert 'http' not in page.replace('data:', '')


def damage(name):
    def cut_config(run):
        (run / 'config.yaml').write_text('scaling: {method', encoding='utf-8')

    def cut_log(run):
        (run / 'log').write_text('[{"main/loss": 2', encoding='utf-8')

    def cut_scales(run):
        path = run / 'scales.csv'
        path.write_bytes(path.read_bytes()[:-7])

    def unfinished(run):
        (run / 'result.json').unlink()

    def not_begun(run):
        for path in run.iterdir():
            if path.name != 'config.yaml':
                path.unlink()

    def failed(run):
        (run / 'error.txt').write_text('Traceback\nRuntimeError: no luck\n', encoding='utf-8')
        unfinished(run)

    return locals()[name]


@pytest.mark.parametrize(
    'kind, said',
    [
        ('cut_config', 'config.yaml is damaged'),
        ('cut_log', 'log is damaged'),
        ('unfinished', 'not finished; the log ends at iteration 4'),
        ('not_begun', 'not finished; the log ends at iteration 0; no log yet'),
        ('failed', 'failed: RuntimeError: no luck'),
    ],
)
def test_a_run_that_is_not_whole_is_listed_and_does_not_stop_the_report(copied, kind, said):
    damage(kind)(copied / 'fp32-seed=0')
    assert report(copied, '--html') == 0
    text = (copied / 'report.md').read_text(encoding='utf-8')
    assert text.startswith('# Runs\n\n1 finished of 2')
    assert f'- `tiny/fp32-seed=0`: {said}' in text
    assert '| `tiny/adaptive-seed=0` |' in text


def test_a_line_that_was_cut_off_does_not_spoil_the_others(copied):
    damage('cut_scales')(copied / 'fp32-seed=0')
    assert report(copied) == 0


def test_runs_that_are_all_broken_make_a_report_too(copied):
    for run in ('fp32-seed=0', 'adaptive-seed=0'):
        damage('not_begun')(copied / run)
    assert report(copied) == 0
    assert '0 finished of 2' in (copied / 'report.md').read_text(encoding='utf-8')


def test_a_single_run_is_reported(copied):
    assert report(copied / 'fp32-seed=0') == 0
    assert (copied / 'fp32-seed=0' / 'report.md').is_file()


@pytest.mark.parametrize('given, said', [('nothing', 'no such folder'), ('', 'no run in it')])
def test_a_folder_without_runs_is_one_line_and_exit_code_2(tmp_path, capsys, given, said):
    assert report(tmp_path / given) == 2
    error = capsys.readouterr().err
    assert said in error and error.count('\n') == 1


def test_folders_are_found_once_whatever_way_they_are_named(results):
    both = [str(results / 'adaptive-seed=0'), str(results / 'fp32-seed=0')]
    assert run_folder.find([str(results), both[1] + '/', str(results.parent)]) == both
