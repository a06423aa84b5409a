"""The study: its numbers are those of the runs, and its page says no others."""

import csv
import json
import math
import pathlib
import re
import shutil
import statistics

from experiments.__main__ import main
from experiments.reports import study, study_files, study_tables
from experiments.reports.study_files import ComparedWay, PredictionRatio, StudyRun, Wish
from experiments.reports.tables import percent
from tests.experiments.conftest import TINY

import numpy
import pytest
from scipy import stats

DOCS = pathlib.Path(__file__).parents[3] / 'docs'
E4M3 = 'dtype: float32, gradient_format: float8_e4m3'
MORE = [
    *(f'{{method: fixed, scale: {8**exponent}, {E4M3}}}' for exponent in (1, 2, 3)),
    f'{{method: none, {E4M3}}}',
    f'{{method: per_sample, {E4M3}}}',
]


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp('results')
    (folder / 'tiny.yaml').write_text(TINY)
    for name, seeds, more in (
        ('study_tiny', '[0, 1]', MORE),
        ('study_tiny_seeds', '[0, 1, 2]', ['{method: amax}']),
    ):
        ways = ['{method: fp32}', '{method: none}', '{method: per_sample}', *more]
        options = [
            f'name={name}',
            'optimizer.lr=0.5',
            'train.max_iterations=8',
            'report={gradient_error: 2, predictions: true, comparison: 4}',
            f'sweep={{seeds: {seeds}, scaling: [{", ".join(ways)}]}}',
        ]
        options = [part for option in options for part in ('-o', option)]
        folders = ['--out', str(folder), '--quiet']
        assert main(['sweep', str(folder / 'tiny.yaml'), *options, *folders]) == 0
    return folder


@pytest.fixture
def written(results, tmp_path, capsys):
    capsys.readouterr()
    assert main(['study', str(results), '--out', str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / 'study.md')
    return tmp_path


def rows_of(page, title):
    """The cells of a table of a page, without its header."""
    section = page.split(f'## {title}\n')[1].split('\n## ')[0]
    lines = [line for line in section.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines][2:]


def means(results, experiment, column, way):
    values = []
    for path in sorted((results / experiment).glob(f'{way}-seed=*/result.json')):
        content = json.loads(path.read_text())
        values.append(float(content[column]))
    return statistics.fmean(values)


def test_the_windows_are_of_the_runs_gradient_errors(written, results):
    ((task, format, none, best, window, per_sample),) = rows_of(
        (written / 'study.md').read_text(), study_tables.TABLES['table trained']
    )
    assert (task, format) == ('tiny', 'float8_e4m3')
    name = 'dtype=float32-gradient_format=float8_e4m3'
    errors = {1: means(results, 'study_tiny', 'gradient_error', f'none-{name}')}
    for scale in (8, 64, 512):
        way = f'fixed-{name}-scale={scale}'
        errors[scale] = means(results, 'study_tiny', 'gradient_error', way)
    ours = means(results, 'study_tiny', 'gradient_error', f'per_sample-{name}')
    least = min(errors.values())
    assert none == percent(errors[1])
    assert best == percent(least)
    inside = [scale for scale, error in errors.items() if error <= 2 * min(least, ours)]
    assert window == f'2^{math.log2(inside[0]):.0f} to 2^{math.log2(inside[-1]):.0f}'
    assert per_sample == f'{percent(ours)} (× {ours / least:.2f})'


def test_ways_of_scaling_are_compared_on_the_weights_of_float32_runs(written, results):
    page = (written / 'study.md').read_text()
    rows = rows_of(page, study_tables.TABLES['table windows'])
    assert [row[:2] for row in rows] == [
        ['tiny', format] for format in ('float16', 'float8_e5m2', 'float8_e4m3')
    ]
    errors = []
    for path in results.glob('*/fp32-seed=*/comparison.csv'):
        with open(path, newline='') as file:
            of_run = list(csv.DictReader(file))
        assert {row['iteration'] for row in of_run} == {'4', '8'}
        errors += [
            float(row['error'])
            for row in of_run
            if (row['way'], row['format']) == ('per_sample', 'float8_e4m3')
        ]
    assert len(errors) == 2 * 5
    assert any(percent(statistics.fmean(errors)) in cell for cell in rows[2])
    assert not list(results.glob('*/none*/comparison.csv'))


def test_accuracies_are_compared_in_pairs(written, results):
    page = (written / 'study.md').read_text()
    rows = rows_of(page, study_tables.TABLES['table accuracy'])
    assert [row[:4] for row in rows] == [
        ['tiny', 'fp32', 'float32', '3'],
        *(['tiny', way, 'float16', '3'] for way in ('none', 'per_sample', 'amax')),
    ]
    by_way = {}
    for way in ('fp32', 'none', 'per_sample', 'amax'):
        paths = [results / 'study_tiny_seeds' / f'{way}-seed={s}' / 'result.json' for s in range(3)]
        by_way[way] = [json.loads(path.read_text())['accuracy'] for path in paths]
    for row in rows[1:]:
        found, exact = by_way[row[1]], by_way['fp32']
        difference = statistics.fmean(found) - statistics.fmean(exact)
        assert row[5] == f'{difference * 100:+.2f}'
        if found == exact:
            assert row[6] == '1'
        elif len({a - b for a, b in zip(found, exact)}) > 1:
            assert row[6] == f'{stats.ttest_rel(found, exact).pvalue:.2g}'


def run(way, format, seed, value):
    rest = dict.fromkeys(StudyRun._fields[6:], 0.0)
    return StudyRun('tiny_seeds', way, format, math.nan, seed, value, **rest)


def test_where_t_is_kept_is_late_in_the_worst_layer(written, results):
    page = (written / 'study.md').read_text()
    rows = {row[1]: row[2:] for row in rows_of(page, study_tables.TABLES['table threshold'])}
    late, over = [], []
    for seed in (0, 1):
        path = results / 'study_tiny' / f'none-seed={seed}' / 'scales.csv'
        with open(path, newline='') as file:
            of_run = [(row, float(row['underflow'])) for row in csv.DictReader(file)]
        # Of eight iterations the last two.
        by_layer = {
            layer: [
                rate for row, rate in of_run if row['layer'] == layer and int(row['iteration']) > 6
            ]
            for layer in {row['layer'] for row, _ in of_run}
        }
        late.append(max(map(statistics.fmean, by_layer.values())))
        over.append(numpy.mean([rate > 1e-3 for _, rate in of_run]))
    shown = [percent(statistics.fmean(each)) for each in (late, over)]
    assert rows['float16'][0] == ' / '.join(shown)


def rows_of_table(name, runs=(), compared=(), ratios=(), wishes=()):
    page = study_tables.values(list(runs), list(compared), list(ratios), list(wishes))[name]
    return [line.strip('| ').split(' | ') for line in page.splitlines()[2:]]


def test_what_no_single_scale_serves_is_counted():
    wishes = [
        Wish('tiny', 'float16', f'/fc{i}', 0, 2.0**wanted, 2.0**allowed)
        for i, (wanted, allowed) in enumerate([(3, 12), (9, 10), (11, 14), (10, 20)])
    ]
    (row,) = rows_of_table('table wanted', wishes=wishes)
    assert row == ['tiny', 'float16', '2^3', '2^11', '2^10', '1 of 4']


def test_the_windows_that_a_policy_keeps_are_within_a_fifth_of_the_best_fixed_scale():
    compared = []
    for format, ours in (('float16', 0.119), ('float8_e5m2', 0.121), ('float8_e4m3', 0.04)):
        for scale, error in ((1.0, 0.3), (8.0, 0.1), (64.0, 0.15), (512.0, 0.9)):
            compared.append(ComparedWay('tiny', format, 'fixed', scale, 0, error))
        compared.append(ComparedWay('tiny', format, 'per_sample', math.nan, 0, ours))
    said = study_tables.values([], compared, [], [])
    assert said['windows'] == '3'
    assert said['windows kept per_sample'] == '2 of 3'
    assert said['windows missed per_sample'] == 'tiny in float8_e5m2 (1.21)'
    assert (said['best ratio per_sample'], said['worst ratio per_sample']) == ('0.40', '1.21')
    assert said['window tiny float16'] == '2^3 to 2^6'
    assert said['windows that are empty'] == 'tiny in float8_e4m3'


def test_errors_that_are_all_zero_or_infinite_are_as_good_as_each_other():
    for error in (0.0, math.inf):
        compared = [ComparedWay('tiny', 'float16', 'fixed', 8.0**k, 0, error) for k in range(4)]
        compared += [ComparedWay('tiny', 'float16', 'amax', math.nan, 0, error)]
        assert study_tables.values([], compared, [], [])['worst ratio amax'] == '1.00'


def test_predictions_are_set_over_what_was_measured(written, results):
    ratios = []
    for path in results.glob('study_tiny/none-dtype*/predictions.csv'):
        with open(path, newline='') as file:
            read = list(csv.DictReader(file))
        rows = [(float(row['per_sample']), float(row['underflow'])) for row in read]
        ratios += [predicted / measured for predicted, measured in rows if measured >= 1e-4]
    kept = study_files.read(str(written / 'study'), PredictionRatio)
    (found,) = (r for r in kept if (r.format, r.criterion) == ('float8_e4m3', 'per_sample'))
    assert found.cells == len(ratios) > 0
    assert found.median == pytest.approx(statistics.median(ratios))
    assert found.lowest <= found.median <= found.highest
    assert 0.5 < found.median < 2


def test_what_one_format_wants_another_wants_so_many_times_larger(written, results):
    wanted = {}
    path = results / 'study_tiny_seeds' / 'fp32-seed=0' / 'predictions.csv'
    with open(path, newline='') as file:
        for row in csv.DictReader(file):
            if int(row['iteration']) > 6:
                scale = max(wanted.get(row['layer'], 0), float(row['wanted']))
                wanted[row['layer']] = scale
    wishes = study_files.read(str(written / 'study'), Wish)
    # The smallest subnormals: 2^-24, 2^-16, 2^-9.
    for format, times in (('float16', 1), ('float8_e5m2', 2**8), ('float8_e4m3', 2**15)):
        of_format = {wish.layer: wish for wish in wishes if wish.format == format}
        assert {layer: wish.wanted for layer, wish in of_format.items()} == {
            layer: scale * times for layer, scale in wanted.items()
        }
    allowed = {wish.format: wish.allowed for wish in wishes if wish.layer == '/predictor/fc3'}
    # 65504, 57344 and 448: a power of two or none, and seven, below one another.
    assert allowed['float16'] / allowed['float8_e5m2'] in (1, 2)
    assert allowed['float16'] / allowed['float8_e4m3'] in (2**7, 2**8)


def test_ways_that_differ_from_float32_are_named():
    far = [0.2, 0.21, 0.19, 0.2]
    near = [0.5, 0.51, 0.5, 0.49]
    runs = [run('fp32', 'float32', seed, 0.5) for seed in range(4)]
    runs += [run('none', 'float8_e4m3', seed, value) for seed, value in enumerate(far)]
    runs += [run('amax', 'float16', seed, value) for seed, value in enumerate(near)]
    said = study_tables.values(runs, [], [], [])
    assert said['accuracies that differ'] == 'tiny in float8_e4m3 by none'
    assert study_tables.values(runs[:4], [], [], [])['accuracies that differ'] == 'none'


def test_a_run_in_two_folders_is_an_error(results, tmp_path, capsys):
    shutil.copytree(results / 'study_tiny', tmp_path / 'copy' / 'study_tiny')
    capsys.readouterr()
    folders = [str(results), str(tmp_path / 'copy')]
    assert main(['study', *folders, '--out', str(tmp_path / 'docs')]) == 2
    said = capsys.readouterr().err
    assert 'given study_tiny/' in said and 'each run once' in said and said.count('\n') == 1


def test_a_task_without_its_float32_runs_is_shown_without_differences():
    runs = [run('none', 'float16', 0, 0.5), run('amax', 'float16', 1, 0.6)]
    assert rows_of_table('table accuracy', runs) == [
        ['tiny', 'none', 'float16', '1', '50.0%', '+nan', 'nan', 'nan'],
        ['tiny', 'amax', 'float16', '1', '60.0%', '+nan', 'nan', 'nan'],
    ]


def test_there_is_a_picture_of_each_kind(written):
    for name in ('windows', 'underflow', 'error', 'predictions', 'wanted'):
        assert (written / 'study' / f'{name}.png').read_bytes().startswith(b'\x89PNG')


def test_a_template_gets_numbers_by_their_names(written, results):
    (written / 'study' / 'template.md').write_text(
        'of {{ runs }} runs: {{value tiny float16 none}}, {{ value other float16 none }}'
    )
    accuracy = means(results, 'study_tiny', 'accuracy', 'none')
    shown = percent(accuracy)
    assert study.render(str(written)) == f'of 28 runs: {shown}, (not measured)'


def test_a_run_that_is_damaged_is_left_out_and_none_at_all_is_an_error(results, tmp_path, capsys):
    copied = pathlib.Path(shutil.copytree(results / 'study_tiny', tmp_path / 'study_tiny'))
    (copied / 'none-seed=0' / 'predictions.csv').write_text('iteration\n')
    assert main(['study', str(copied), '--out', str(tmp_path)]) == 0
    with open(tmp_path / 'study' / 'runs.csv', newline='') as file:
        assert (
            sum(row['way'] == 'none' and row['format'] == 'float16' for row in csv.DictReader(file))
            == 1
        )
    for path in copied.glob('*/result.json'):
        path.unlink()
    capsys.readouterr()
    assert main(['study', str(copied), '--out', str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert 'no run in it is finished' in said and said.count('\n') == 1


def test_the_page_of_the_documentation_says_what_its_files_say():
    assert (DOCS / 'study.md').read_text(encoding='utf-8') == study.render(str(DOCS))


def test_every_number_of_that_page_has_a_place_in_its_template():
    template = (DOCS / 'study' / 'template.md').read_text(encoding='utf-8')
    prose = re.sub(r'\{\{.*?\}\}', '', template)
    assert re.findall(r'\d[\d.]* ?(?:%|times|×|points)|\b0\.\d+', prose) == []
    assert '(not measured)' not in study.render(str(DOCS))


def test_what_the_page_says_in_words_of_float16_is_so():
    said = study_tables.values(
        *(study_files.read(str(DOCS / 'study'), kind) for kind in study_files.FILES)
    )
    assert 'In float16 nothing differs' in (DOCS / 'study.md').read_text(encoding='utf-8')
    assert 'in float16' not in said['accuracies that differ']
    # Each of the ways that the sentence is about was trained with ten seeds.
    for task in ('digits', 'sigmoid', 'text'):
        for way in ('none', 'dynamic-10', 'per_sample'):
            assert f'| {task} | {way} | float16 | 10 |' in said['table accuracy']


@pytest.mark.parametrize('name', ['windows', 'underflow', 'error', 'predictions', 'wanted'])
def test_the_pictures_that_the_page_shows_are_there(name):
    assert f'(study/{name}.png)' in (DOCS / 'study.md').read_text(encoding='utf-8')
    assert (DOCS / 'study' / f'{name}.png').exists()


def test_the_quickstarts_seed_is_the_most_typical_of_ten():
    makefile = (DOCS.parent / 'Makefile').read_text(encoding='utf-8')
    chosen = int(re.search(r'^QUICKSTART_SEED = (\d+)', makefile, re.MULTILINE).group(1))
    ways = {'fp32', 'none', 'fixed-scale=128', 'dynamic-1000', 'adaptive', 'amax', 'amax-compute'}
    ways |= {'measured', 'per_sample'}
    found = {}
    for row in study_files.read(str(DOCS / 'study'), StudyRun):
        if row.experiment == 'digits_seeds' and row.way in ways and row.format != 'float8_e4m3':
            found[row.way, row.seed] = row.value, row.loss, row.error, row.underflow
    values = numpy.array([[found[way, seed] for seed in range(10)] for way in sorted(ways)])
    spread = values.std(axis=1, keepdims=True)
    distances = (values - values.mean(axis=1, keepdims=True)) / numpy.where(spread, spread, 1)
    assert (distances**2).mean(axis=(0, 2)).argmin() == chosen
