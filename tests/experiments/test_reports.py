"""A report reads the folders of any runs, whole, half-finished or broken."""

import json
import pathlib
import re
import shutil

from chainerlp.extensions import scales_file
from experiments import differences, loading
from experiments.__main__ import main
from experiments.reports import by_layer, curves, methods_table, published, run_folder

import numpy
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


def test_differences_are_of_nested_keys_that_some_lack():
    assert differences.of([{'a': {'b': 1, 'c': 2}}, {'a': {'b': 1}, 'd': 3}]) == {
        'a.c': [2, None],
        'd': [None, 3],
    }


@pytest.mark.parametrize(
    'scaling, number',
    [
        (dict(method='adaptive', interval=1), '71.48 (top-1, %)'),
        (dict(method='adaptive', interval=1000), '71.29 (top-1, %)'),
        (dict(method='adaptive', interval=10), None),
        (dict(method='fixed', scale=128.0), '71.39 (top-1, %)'),
        (dict(method='fixed', scale=16.0), None),
        (dict(method='none'), '71.24 (top-1, %)'),
        (dict(method='amax'), None),
    ],
)
def test_the_authors_numbers_stand_where_task_and_method_are_theirs(scaling, number):
    task = dict(dataset=dict(name='imagenet'), model=dict(name='resnet_imagenet', depth=18))
    assert published.number(dict(task, scaling=scaling)) == number
    assert published.number(dict(dataset=dict(name='digits'), scaling=scaling)) is None


@pytest.mark.parametrize(
    ('size', 'batch_size', 'scaling', 'number'),
    [
        (512, 8, {'method': 'adaptive'}, '79.27 (mAP, %)'),
        (512, 32, {'method': 'none'}, 'diverged (mAP, %)'),
        (300, 8, {'method': 'fixed', 'scale': 4096.0}, '76.23 (mAP, %)'),
        (300, 4, {'method': 'adaptive'}, None),
    ],
)
def test_the_authors_numbers_are_those_of_the_size_and_the_batch(size, batch_size, scaling, number):
    config = dict(
        dataset=dict(name='voc'),
        model=dict(name='ssd', size=size),
        train=dict(batch_size=batch_size),
        scaling=scaling,
    )
    assert published.number(config) == number


def test_a_knob_of_its_own_has_a_number_of_its_own():
    task = dict(dataset=dict(name='imagenet'), model=dict(name='resnet_imagenet', depth=50))
    scaling = dict(method='adaptive', max_scale=128.0, max_total_scale=4096.0, interval=1)
    assert published.number(dict(task, scaling=scaling)) == '76.22 (top-1, %)'
    scaling['interval'] = 1000
    assert published.number(dict(task, scaling=scaling)) is None
    scaling = dict(method='adaptive')
    assert published.number(dict(task, scaling=scaling)) == '76.07 (top-1, %)'


@pytest.mark.parametrize(
    'name', ['imagenet_resnet18-small', 'camvid_segnet-small', 'voc_ssd300-small']
)
def test_a_small_training_is_not_set_beside_a_published_number(name):
    config = loading.load(f'configs/{name}.yaml', []).single()
    assert published.number(config.model_dump()) is None
    full = loading.load(f'configs/{name.replace("-small", "")}.yaml', []).single()
    assert published.number(full.model_dump()) is not None


def test_the_legend_names_runs_of_every_task():
    runs = [finished('a', 0.9), finished('b', 0.8)]
    runs[0].log = [{'iteration': 1, 'main/loss': 2.0, 'validation/main/accuracy': 0.9}]
    runs[1].log = [{'iteration': 1, 'main/loss': 2.0, 'validation/main/map': 0.8}]
    (legend,) = curves.draw(runs).legends
    assert [text.get_text() for text in legend.get_texts()] == ['cifar/a', 'cifar/b']


def finished(name, accuracy, scaling=None):
    return run_folder.RunFolder(
        f'results/cifar/{name}',
        config={'name': 'cifar', 'scaling': scaling or {'method': 'none'}},
        result={'metric': 'accuracy', 'accuracy': accuracy},
    )


def test_the_papers_table_has_a_row_a_way_of_scaling_and_the_mean_over_seeds():
    header, rows = methods_table.rows(
        [
            finished('none-seed=0', 0.90),
            finished('adaptive-seed=0', 0.95),
            finished('none-seed=1', 0.92),
        ]
    )
    assert header == ['scaling', 'cifar, accuracy %']
    # The sample standard deviation of 90 and 92 is the root of 2.
    assert rows == [['none', '91.00 ± 1.41'], ['adaptive', '95.00']]


def test_layers_are_drawn_at_a_few_iterations_from_the_first_to_the_last():
    rows = [
        scales_file.Row(iteration, f'/fc{layer}', 0, 2.0, 4.0, 0.1 * layer, 0.2, 0.0, 1.0)
        for iteration in range(1, 101)
        for layer in range(3)
    ]
    figure = by_layer.draw(rows, threshold=1e-3)
    left, right = figure.axes
    labels = [line.get_label() for line in left.lines]
    assert labels[0] == 'iteration 1' and labels[-2:] == ['iteration 100', 'T = 0.001']
    assert len(labels) == 6
    numpy.testing.assert_allclose(left.lines[0].get_ydata(), [0, 0.1, 0.2])
    assert list(right.lines[0].get_ydata()) == [4, 4, 4]
    with pytest.raises(ValueError, match='nothing to draw'):
        by_layer.draw([])
