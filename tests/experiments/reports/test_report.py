"""A report reads the folders of any runs, whole, half-finished or broken."""

import hashlib
import json
import pathlib
import random
import re
import shutil
import warnings

from chainerlp.extensions import files
from experiments.__main__ import main
from experiments.reports import run_files, run_folder
from experiments.reports.tables import percent
from experiments.run import snapshot_predictions

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
        'report: {gradient_error: 2, predictions: true, comparison: 2}\n'
        'sweep: {seeds: [0], scaling: [{method: fp32}, {method: adaptive}]}\n',
        encoding='utf-8',
    )
    assert main(['sweep', str(config), '--out', str(folder), '--quiet']) == 0
    return folder / 'tiny'


@pytest.fixture
def copied(results, tmp_path):
    """The same runs, in a folder that may be damaged."""
    return pathlib.Path(shutil.copytree(results, tmp_path / 'tiny'))


@pytest.fixture
def older(copied):
    """The same runs, as they were before there were checksums."""
    for path in copied.glob('*/run.json'):
        path.write_text(json.dumps({'starts': json.loads(path.read_text())['starts']}))
    return copied


def report(*arguments):
    return main(['report', *map(str, arguments)])


PICTURES = (
    *('curves', 'scales', 'underflow', 'layers', 'errors'),
    *('nonzero', 'unbounded', 'expected', 'alpha'),
)


def row_of(text, run):
    """The cells of a run's row in the table of results, without its name."""
    line = re.search(rf'^\| `{run}` \|(.*)\|$', text, re.MULTILINE).group(1)
    return [cell.strip() for cell in line.split('|')]


def test_a_report_has_a_row_a_run_and_pictures_that_are_there(copied, capsys):
    assert report(copied) == 0
    path = pathlib.Path(capsys.readouterr().out.strip())
    assert path == copied / 'report.md'
    text = path.read_text(encoding='utf-8')
    for run in ('fp32-seed=0', 'adaptive-seed=0'):
        result = json.loads((copied / run / 'result.json').read_text())
        last, best = row_of(text, run)[:2]
        assert last == f'{result["accuracy"]:.2%}'
        log = json.loads((copied / run / 'log').read_text())
        assert best == f'{max(entry["validation/main/accuracy"] for entry in log):.2%}'
    pictures = re.findall(r'\]\(<report/([^>]+)\.png>\)', text)
    assert pictures == [f'tiny-{name}' for name in PICTURES]
    pictures = re.findall(r'\]\(<([^>]+)>\)', text)
    assert all((copied / picture).read_bytes().startswith(b'\x89PNG') for picture in pictures)


def test_underflow_nonzero_share_and_gradient_error_stand_side_by_side(copied):
    assert report(copied) == 0
    text = (copied / 'report.md').read_text(encoding='utf-8')
    header = re.search(r'^\| run \|.*$', text, re.MULTILINE).group()
    assert '| underflow | worst layer | unscaled | nonzero | gradient error |' in header
    error = json.loads((copied / 'adaptive-seed=0' / 'result.json').read_text())['gradient_error']
    assert row_of(text, 'adaptive-seed=0')[7] == percent(error)
    assert 0 < error < 0.1
    assert row_of(text, 'fp32-seed=0')[7] == '0.0%'
    assert 'given what came from above' in text


def test_a_report_of_runs_without_gradient_errors_has_no_column_for_them(older):
    for path in [*older.glob('*/gradient_error.csv'), *older.glob('*/nonzero.csv')]:
        path.unlink()
    assert report(older) == 0
    assert 'gradient error' not in (older / 'report.md').read_text(encoding='utf-8')


def test_what_the_logs_have_besides_has_columns(older, capsys):
    path = older / 'fp32-seed=0' / 'log'
    log = json.loads(path.read_text())
    log[-1]['validation/main/accuracy_top5'] = 0.98765
    path.write_text(json.dumps(log))
    assert report(older) == 0
    header, _, *rows = re.findall(r'^\|.*\|$', (older / 'report.md').read_text(), re.MULTILINE)[:4]
    assert header.endswith('| ms / iteration | top-5 accuracy | examples / s |')
    fp32 = next(row for row in rows if 'fp32-seed=0' in row)
    speed = f'{log[-1]["data/images_per_sec"]:.4g}'
    assert fp32.endswith(f'| 0.9877 | {speed} |')


def test_every_metric_has_a_column(older, capsys):
    path = older / 'fp32-seed=0' / 'result.json'
    result = json.loads(path.read_text())
    result.update(metric='miou', miou=0.5)
    path.write_text(json.dumps(result))
    report(older)
    text = (older / 'report.md').read_text(encoding='utf-8')
    assert '| run | miou, last | miou, best | accuracy, last | accuracy, best | loss |' in text
    assert row_of(text, 'fp32-seed=0')[:4] == ['50.00%', '–', '', '']
    assert row_of(text, 'adaptive-seed=0')[:2] == ['', '']


def test_the_configs_differences_are_shown_and_nothing_else(copied):
    report(copied)
    text = (copied / 'report.md').read_text(encoding='utf-8')
    assert '`scaling.method`' in text and '`train.batch_size`' not in text


def test_a_page_holds_its_pictures(copied, tmp_path, capsys):
    assert report(copied, '--html', '--out', tmp_path / 'out') == 0
    path = pathlib.Path(capsys.readouterr().out.strip())
    page = path.read_text(encoding='utf-8')
    assert path == tmp_path / 'out' / 'report.html'
    assert page.count('src="data:image/png;base64,') == len(PICTURES)
    assert 'src="report' not in page and '<table>' in page
    assert 'http' not in page.replace('http-equiv', '')


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
    assert row_of(text, 'adaptive-seed=0')
    assert text.index(said) < text.index('### Results')  # the reason comes first


def test_a_line_that_was_cut_off_does_not_spoil_the_others(copied):
    damage('cut_scales')(copied / 'fp32-seed=0')
    assert report(copied) == 0


FILES = (
    *('config.yaml', 'log', 'scales.csv', 'gradient_error.csv', 'nonzero.csv'),
    *('predictions.csv', 'comparison.csv', 'result.json'),  # comparison.csv in float32 alone
)
ADAPTIVE_FILES = {*FILES, 'unbounded.csv'} - {'comparison.csv'}


def broken(folder):
    """Returns what a report says of the runs that are not whole, a list of lines."""
    text = (folder / 'report.md').read_text(encoding='utf-8')
    return re.findall(r'^- `tiny/(.*)$', text, re.MULTILINE)


def test_what_is_whole_fits_its_checksums(copied):
    for run in ('fp32-seed=0', 'adaptive-seed=0'):
        record = json.loads((copied / run / 'run.json').read_text())
        of_run = {*FILES} if run.startswith('fp32') else ADAPTIVE_FILES
        assert set(record['checksums']) == of_run and len(record['starts']) == 1
        for name, checksum in record['checksums'].items():
            content = (copied / run / name).read_bytes()
            assert checksum == hashlib.sha256(content).hexdigest()
        assert run_folder.read(str(copied / run)).problem is None


@pytest.mark.parametrize('name', FILES)
def test_any_flipped_bit_of_a_file_is_found(copied, name):
    path = copied / 'fp32-seed=0' / name
    content = path.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(content)), 40):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        problem = run_folder.read(str(path.parent)).problem
        assert problem == f'{name} is damaged (it does not fit its checksum in run.json)'


@pytest.mark.parametrize('name', ['scales.csv', 'result.json'])
def test_a_changed_digit_is_listed_and_its_file_left_out(copied, name):
    path = copied / 'fp32-seed=0' / name
    content = bytearray(path.read_bytes())
    content[[match.start() for match in re.finditer(rb'\d', content)][-1]] ^= 1
    path.write_bytes(content)
    assert report(copied) == 0
    said = f'{name} is damaged (it does not fit its checksum in run.json)'
    assert broken(copied) == [f'fp32-seed=0`: {said}']
    text = (copied / 'report.md').read_text(encoding='utf-8')
    assert '1 finished of 2' in text and row_of(text, 'adaptive-seed=0')


def test_a_file_that_is_missing_is_listed(copied):
    (copied / 'fp32-seed=0' / 'scales.csv').unlink()
    problem = run_folder.read(str(copied / 'fp32-seed=0')).problem
    assert problem == 'scales.csv is damaged (it is missing)'


def test_runs_made_before_there_were_checksums_are_shown_and_counted(older):
    (older / 'fp32-seed=0' / 'run.json').unlink()
    assert report(older) == 0
    text = (older / 'report.md').read_text(encoding='utf-8')
    assert text.startswith('# Runs\n\n2 finished of 2') and broken(older) == []
    assert 'Of these, 2 have no checksums' in text.splitlines()[2]


def test_an_incompletely_measured_run_is_marked(older):
    path = older / 'fp32-seed=0' / 'result.json'
    content = {**json.loads(path.read_text()), 'incomplete': 'scales.csv lacks 1 of 4 iterations'}
    path.write_text(json.dumps(content))
    assert report(older, '--html') == 0
    text = (older / 'report.md').read_text(encoding='utf-8')
    assert '- `tiny/fp32-seed=0`: scales.csv lacks 1 of 4 iterations' in text
    assert re.search(r'^\| `fp32-seed=0` \\\* \| [\d.]+%', text, re.MULTILINE)
    assert '<code>fp32-seed=0</code> *</td>' in (older / 'report.html').read_text()


@pytest.mark.parametrize('names', [['result.json'], ['scales.csv', 'log'], FILES, ['run.json']])
def test_files_of_another_run_are_damaged(copied, names):
    ours, theirs = copied / 'fp32-seed=0', copied / 'adaptive-seed=0'
    differing = [
        name
        for name in FILES
        if (theirs / name).exists() and (theirs / name).read_bytes() != (ours / name).read_bytes()
    ]
    for name in names:
        if (theirs / name).exists():
            shutil.copy(theirs / name, ours)
    problem = run_folder.read(str(ours)).problem
    if names == ['run.json']:
        assert 'it is the run adaptive-seed=0, by its run.json' in problem
        names = differing
    assert all(f'{name} is damaged (' in problem for name in names if name in differing)


def test_a_run_under_the_name_of_another_is_told(copied):
    (copied / 'fp32-seed=0').rename(copied / 'none-seed=0')
    problem = run_folder.read(str(copied / 'none-seed=0')).problem
    assert problem == 'it is the run fp32-seed=0, by its run.json'


def test_a_file_that_the_run_did_not_leave_is_none_of_it(copied):
    shutil.copy(copied / 'fp32-seed=0' / 'comparison.csv', copied / 'adaptive-seed=0')
    run = run_folder.read(str(copied / 'adaptive-seed=0'))
    assert run.problem == 'comparison.csv is damaged (run.json does not know it)'
    assert run.comparison == []


@pytest.mark.parametrize('name', ['config.yaml', 'result.json', 'run.json'])
def test_a_folder_in_a_files_place_hides_no_run(copied, name):
    path = copied / 'fp32-seed=0' / name
    path.unlink()
    path.mkdir()
    assert report(copied) == 0
    (line,) = broken(copied)
    assert f'{name} is damaged (Is a directory)' in line


ROWS = {
    'scales.csv': files.Row,
    'gradient_error.csv': files.ErrorRow,
    'nonzero.csv': files.NonzeroRow,
    'predictions.csv': run_files.PredictionRow,
    'comparison.csv': run_files.ComparisonRow,
    'unbounded.csv': run_files.UnboundedRow,
}
ODD = {
    'config.yaml': {
        'a list': '[scaling]',
        'a section that is a list': 'scaling: [adaptive]',
        'a section that is text': 'dataset: digits',
        'a threshold that is text': 'scaling: {method: adaptive, threshold: high}',
        'a threshold of 0': 'scaling: {method: adaptive, threshold: 0}',
        'a scale that is a list': 'scaling: {method: fixed, scale: [1]}',
        'a seed that is a list': 'seed: [1]',
        'a date': 'name: 2020-01-01',
        'no date': 'name: 2020-13-41',
        'half a character': 'name: "\\ud800"',
        'a loop': 'a: &a [*a]',
        'a tag': 'a: !!timestamp x',
        'no key': '=: <<',
        'a long integer': f'seed: {"9" * 5000}',
        'deep lists': '[' * 10000,
        'code': '!!python/object/apply:os.system [x]',
        'a key that is no word': '"`<b>`": 1',
        'a way that is no word': 'scaling: {method: "`<b>`"}',
        'much': 'a: 1\n' * 20000,
    },
    'log': {
        'no JSON': '[',
        'nothing': '[]',
        'a mapping': '{}',
        'no mappings': '[1]',
        'no iteration': '[{"elapsed_time": 1}]',
        'no time': '[{"iteration": 1}]',
        'iteration 0': '[{"iteration": 0, "elapsed_time": 1}]',
        'an iteration that is text': '[{"iteration": "1", "elapsed_time": 1}]',
        'a value that is a list': '[{"iteration": 1, "elapsed_time": 1, "main/loss": [1]}]',
        'a value that is text': '[{"iteration": 1, "elapsed_time": 1, "data/wait": "1"}]',
        'a long integer': f'[{{"iteration": 1, "elapsed_time": 1{"0" * 400}}}]',
        'an accuracy over 1': '[{"iteration":1,"elapsed_time":1,"validation/main/accuracy":1e308}]',
        'deep lists': '[' * 100000,
        'no text': b'\xff',
    },
    'scales.csv': {
        'an iteration that is no integer': '²,/fc,0,1,1,0,0,0,1',
        'a long integer': f'{"9" * 5000},/fc,0,1,1,0,0,0,1',
        'an integer that no float is': f'{2**53 + 1},/fc,0,1,1,0,0,0,1',
        'no call': '1,/fc,x,1,1,0,0,0,1',
        'a scale that is no number': '1,/fc,0,x,1,0,0,0,1',
        'a negative scale': '1,/fc,0,1,-1,0,0,0,1',
        'a rate over 1': '1,/fc,0,1,1,2,0,0,1',
        'a formula': '1,/$\\frac$,0,1,1,0,0,0,1',
        'a control character': '1,/\a,0,1,1,0,0,0,1',
        'a long field': f'1,{"/fc" * 100000},0,1,1,0,0,0,1',
        'no text': b'1,/\xff,0,1,1,0,0,0,1',
    },
    'gradient_error.csv': {
        'an iteration that is no integer': '²,/fc/W,0.1',
        'a negative error': '1,/fc/W,-0.1',
        'a formula': '1,/$\\frac$,0.1',
        'a long integer': f'{"9" * 5000},/fc/W,0.1',
    },
    'nonzero.csv': {
        'no call': '1,/fc,x,1,1',
        'a share over 1': '1,/fc,0,1.5,1',
        'a negative share': '1,/fc,0,1,-1',
        'a negative call': '1,/fc,-1,1,1',
    },
    'predictions.csv': {
        'no call': '1,/fc,x,0,0,0,1,1',
        'a rate over 1': '1,/fc,0,1.5,0,0,1,1',
        'a rate that is no number': '1,/fc,0,0,nan,0,1,1',
        'a scale of 0': '1,/fc,0,0,0,0,0,1',
        'a negative scale': '1,/fc,0,0,0,0,1,-1',
    },
    'unbounded.csv': {
        'a scale of 0': '1,/fc,0,0,1',
        'a negative scale': '1,/fc,0,1,-1',
    },
    'comparison.csv': {
        'no iteration': '0,fixed,float16,1,0,0',
        'an unknown format': '1,fixed,float12,1,0,0',
        'a scale of 0': '1,fixed,float16,0,0,0',
        'a negative error': '1,fixed,float16,1,-1,0',
        'a formula': '1,$x,float16,1,0,0',
    },
    'result.json': {
        'a list': '[]',
        'a number': '1',
        'nothing': '',
        'no metric': '{}',
        'a metric that is a list': '{"metric": []}',
        'an unknown metric': '{"metric": "luck", "luck": 1}',
        'no accuracy': '{"metric": "accuracy"}',
        'an accuracy over 1': '{"metric": "accuracy", "accuracy": 8.5, "loss": 1, "skipped": 0}',
        'no loss': '{"metric": "accuracy", "accuracy": 0.5, "skipped": 0}',
        'a loss that is text': '{"metric":"accuracy","accuracy":0.5,"loss":"high","skipped":0}',
        'skipped text': '{"metric": "accuracy", "accuracy": 0.5, "loss": 1, "skipped": "0"}',
        'deep lists': '[' * 100000,
    },
    'run.json': {
        'a list': '[]',
        'no JSON': '{"starts": [',
        'starts that are text': '{"starts": ["now"]}',
        'checksums that are a list': '{"starts": [], "checksums": [1]}',
    },
}


@pytest.mark.parametrize('name, kind', [(name, kind) for name in ODD for kind in ODD[name]])
def test_a_file_with_anything_odd_in_it_is_damaged_and_why_is_a_short_line(older, name, kind):
    content = ODD[name][kind]
    content = content if isinstance(content, bytes) else content.encode()
    if name in ROWS:
        content = b'%s\n%s\n' % (','.join(ROWS[name]._fields).encode(), content)
    (older / 'fp32-seed=0' / name).write_bytes(content)
    problem = run_folder.read(str(older / 'fp32-seed=0')).problem
    assert re.fullmatch(rf'{name} is damaged \([^\n]{{2,80}}\)', problem)


def test_a_report_of_odd_files_goes_on_with_the_rest(older):
    run = older / 'fp32-seed=0'
    for name in FILES:
        (run / name).write_text(list(ODD[name].values())[1])
    assert report(older, '--html') == 0
    (line,) = broken(older)
    assert all(f'{name} is damaged (' in line for name in FILES)
    assert row_of((older / 'report.md').read_text(encoding='utf-8'), 'adaptive-seed=0')


def test_a_picture_that_cannot_be_drawn_is_told(older, monkeypatch):
    def fail(runs):
        raise ValueError('no axis for this')

    monkeypatch.setattr('experiments.reports.layer_figures.underflow', fail)
    assert report(older) == 0
    text = (older / 'report.md').read_text(encoding='utf-8')
    assert re.search(r'^underflow of tiny: not drawn \(no axis for this\)$', text, re.MULTILINE)


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
    both = [str(results / 'fp32-seed=0'), str(results / 'adaptive-seed=0')]
    assert run_folder.find([str(results), both[1] + '/', str(results.parent)]) == both


def test_runs_come_in_the_order_of_their_config_and_others_in_that_of_their_names(copied):
    shutil.copytree(copied / 'fp32-seed=0', copied / 'zz')
    shutil.copytree(copied / 'fp32-seed=0', copied / 'a')

    def found():
        return [pathlib.Path(path).name for path in run_folder.find([str(copied)])]

    assert found() == ['fp32-seed=0', 'adaptive-seed=0', 'a', 'zz']
    (copied / 'summary.csv').write_text('damaged\n1')
    assert found() == ['a', 'adaptive-seed=0', 'fp32-seed=0', 'zz']


def test_experiments_have_a_section_each_and_what_they_differ_in_comes_before(copied):
    other = shutil.copytree(copied, copied.parent / 'other')
    for path in other.glob('*/config.yaml'):
        path.write_text(path.read_text().replace('batch_size: 128', 'batch_size: 64'))
    for path in other.glob('*/run.json'):
        path.unlink()
    out = copied.parent / 'out'
    assert report(copied, other, '--out', out) == 0
    text = (out / 'report.md').read_text(encoding='utf-8')
    assert re.findall('^## (.*)$', text, re.MULTILINE) == [
        'What differs between the experiments',
        '`tiny`',
        '`other`',
    ]
    assert '| `train.batch_size` | 128 | `tiny` |\n| `train.batch_size` | 64 | `other` |' in text
    assert text.count('### Results') == 2
    assert len({*re.findall(r'\]\(<([^>]+)>\)', text)}) == 2 * len(PICTURES)


def test_what_was_not_measured_is_a_dash_with_its_reason(older):
    assert '–' not in report_of(older)
    for name in ('scales.csv', 'gradient_error.csv'):
        (older / 'adaptive-seed=0' / name).unlink()
    text = report_of(older)
    assert row_of(text, 'adaptive-seed=0')[3:6] == ['–'] * 3
    assert '– was not measured: underflow, if' in text


def report_of(folder):
    assert report(folder) == 0
    return (folder / 'report.md').read_text(encoding='utf-8')


@pytest.mark.parametrize('name', ['nonzero', 'unbounded', 'expected', 'alpha'])
def test_a_picture_is_drawn_by_command(results, tmp_path, capsys, name):
    assert report(results, '--figure', name, '--out', tmp_path) == 0
    path = tmp_path / 'report' / f'{name}.png'
    assert capsys.readouterr().out == f'{path}\n'
    assert path.read_bytes().startswith(b'\x89PNG')
    assert [p.name for p in tmp_path.rglob('*.*')] == [path.name]


def test_the_difference_of_two_runs_is_drawn_by_command(results, tmp_path):
    runs = results / 'fp32-seed=0', results / 'adaptive-seed=0'
    assert report(*runs, '--figure', 'difference', '--out', tmp_path) == 0
    assert (tmp_path / 'report' / 'difference.png').is_file()


def test_a_picture_that_no_run_has_is_one_line_and_leaves_nothing(results, tmp_path, capsys):
    assert report(results / 'fp32-seed=0', '--figure', 'alpha', '--out', tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith('--figure alpha: given no run') and error.count('\n') == 1
    assert not list(tmp_path.iterdir())


def test_a_picture_that_there_is_no_room_for_is_one_line(results, tmp_path, capsys, monkeypatch):
    def no_room(self, path):  # as of a thousand runs, which would take a minute
        raise ValueError('Image size of 1400x100000 pixels is too large')

    monkeypatch.setattr('matplotlib.figure.Figure.savefig', no_room)
    assert report(results, '--figure', 'alpha', '--out', tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith('--figure alpha: not drawn (') and error.count('\n') == 1
    assert not list((tmp_path / 'report').iterdir())


def test_expected_scales_are_measured_from_a_snapshot(older, tmp_path):
    run = older / 'fp32-seed=0'
    before = {row.layer: row.wanted for row in run_folder.read(str(run)).predictions}
    (run / 'predictions.csv').unlink()
    files_before = sorted(path.name for path in run.iterdir())
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        rows = snapshot_predictions.predictions_of(str(run))
    assert {row.iteration for row in rows} == {5}
    # One iteration later, on another batch: some powers of two at most.
    after = {row.layer: row.wanted for row in rows}
    assert after.keys() == before.keys()
    assert all(2**-3 <= after[layer] / before[layer] <= 2**3 for layer in after)
    assert report(run, '--figure', 'expected', '--out', tmp_path) == 0
    assert sorted(path.name for path in run.iterdir()) == files_before
    (run / 'snapshot_iter_4').write_bytes(b'damaged')
    assert report(run, '--figure', 'expected', '--out', tmp_path) == 2
