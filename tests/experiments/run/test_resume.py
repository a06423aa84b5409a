"""What is finished is kept, what is half done goes on, and what differs is told."""

import json
import os
import re
import signal

from experiments.config import loading
from experiments.reports import run_folder

import pytest


def files(folder):
    found = (path for path in folder.rglob('*') if path.is_file() and path.name != '.lock')
    return {path: path.stat().st_mtime_ns for path in found}


def test_a_finished_run_is_told_and_not_trained_again(cli, tiny, tmp_path):
    code, table, _ = cli('train', tiny)
    before = files(tmp_path / 'out')
    code, again, err = cli('train', tiny)
    assert (code, again) == (0, table)
    assert err.startswith('[1/1] adaptive-seed=0: finished before: accuracy ')
    assert files(tmp_path / 'out') == before


def test_fresh_trains_it_again(cli, tiny, tmp_path):
    cli('train', tiny)
    before = files(tmp_path / 'out')
    code, _, err = cli('train', tiny, '--fresh')
    assert code == 0 and 'finished before' not in err
    assert all(before[path] != time for path, time in files(tmp_path / 'out').items())
    starts = json.loads((tmp_path / 'out/tiny/adaptive-seed=0/run.json').read_text())['starts']
    assert len(starts) == 1


@pytest.mark.parametrize(
    'override, said',
    [
        ('optimizer.lr=0.1', 'optimizer.lr is 0.05 there and 0.1 here'),
        ('train.iterations=9', 'train.epochs is 1 there and null here'),
        ('optimizer.weight_decay=1e-4', 'optimizer.weight_decay is 0.0 there and 0.0001 here'),
    ],
)
def test_a_folder_with_another_config_is_one_line_that_names_the_key(
    cli, tiny, tmp_path, override, said
):
    cli('train', tiny)
    before = files(tmp_path / 'out')
    path = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0' / 'config.yaml'
    code, out, err = cli('train', tiny, '-o', override)
    assert (code, out) == (2, '')
    assert err == f'{path}: {said}: --fresh starts over, another --out leaves it as it is\n'
    assert cli('sweep', tiny, '-o', override) == (code, out, err)  # before anything is run
    assert files(tmp_path / 'out') == before
    assert cli('train', tiny, '-o', override, '--fresh')[0] == 0


def test_a_damaged_config_in_the_folder_is_one_line(cli, tiny, tmp_path):
    cli('train', tiny)
    path = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0' / 'config.yaml'
    path.write_text('name: [')
    code, _, err = cli('train', tiny)
    assert code == 2 and err.startswith(f'{path} is damaged: --fresh') and err.count('\n') == 1


def test_a_run_without_its_config_is_not_begun_anew_unasked(cli, tiny, tmp_path):
    cli('train', tiny)
    path = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0' / 'config.yaml'
    path.unlink()
    before = files(tmp_path / 'out')
    code, _, err = cli('train', tiny)
    assert code == 2 and err.startswith(f'{path} is damaged: --fresh')
    assert err.endswith('(it is missing)\n') and files(tmp_path / 'out') == before
    assert cli('train', tiny, '--fresh')[0] == 0


def test_a_damaged_result_is_made_again_of_the_last_snapshot(cli, tiny, tmp_path):
    cli('train', tiny)
    path = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0' / 'result.json'
    content = json.loads(path.read_text())
    path.write_text('{"name": "adap')
    code, _, err = cli('train', tiny)
    assert code == 0 and err.startswith('adaptive-seed=0: resumes at iteration 4\n')
    again = json.loads(path.read_text())
    del content['seconds'], again['seconds']
    assert again == content


def change_a_digit(path):
    """Changes the last digit of a file by a flipped bit."""
    content = bytearray(path.read_bytes())
    content[[match.start() for match in re.finditer(rb'\d', content)][-1]] ^= 1
    path.write_bytes(content)


def content_of(folder):
    """What a run leaves, but times."""
    result = json.loads((folder / 'result.json').read_text())
    del result['seconds']
    return result, (folder / 'scales.csv').read_text()


def assert_its_result_is_made_again(cli, tiny, folder, expected):
    code, _, err = cli('train', tiny)
    assert code == 0 and err.startswith('adaptive-seed=0: resumes at iteration 4\n')
    assert content_of(folder) == expected
    assert run_folder.read(str(folder)).problem is None


def test_a_result_that_does_not_fit_its_checksum_is_made_again(cli, tiny, tmp_path):
    cli('train', tiny)
    folder = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0'
    expected = content_of(folder)
    change_a_digit(folder / 'result.json')
    assert_its_result_is_made_again(cli, tiny, folder, expected)


ODD = ['[' * 100000, '{"metric": ["accuracy"]}', '1', '{"iterations": 1e999, ']


@pytest.mark.parametrize('odd', ODD, ids=['deep', 'a list', 'a number', 'infinite'])
def test_a_result_that_is_odd_is_made_again_without_checksums_too(cli, tiny, tmp_path, odd):
    cli('train', tiny)
    folder = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0'
    expected = content_of(folder)
    (folder / 'run.json').unlink()
    path = folder / 'result.json'
    if odd.endswith(', '):
        odd += path.read_text().replace('"iterations"', '"others"').lstrip('{')
    path.write_text(odd)
    assert_its_result_is_made_again(cli, tiny, folder, expected)


@pytest.mark.parametrize('command', [['train'], ['sweep'], ['sweep', '--jobs', '2']])
@pytest.mark.parametrize('name', ['scales.csv', 'log'])
def test_of_a_finished_run_what_else_is_damaged_is_told(cli, tiny, tmp_path, command, name):
    name_of_command, *options = command
    table = cli('sweep', tiny)[1] if name_of_command == 'sweep' else cli('train', tiny)[1]
    path = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0' / name
    change_a_digit(path)
    before = files(tmp_path / 'out' / 'tiny' / 'adaptive-seed=0')
    code, again, err = cli(name_of_command, tiny, *options)
    assert (code, again) == (0, table)
    said = f'warning: {path} is damaged (it does not fit its checksum in run.json)'
    assert err.count(said) == 1 and 'adaptive-seed=0: finished before' in err
    assert files(tmp_path / 'out' / 'tiny' / 'adaptive-seed=0') == before


def test_a_run_whose_result_and_scales_are_damaged_goes_on_and_is_marked(cli, tiny, tmp_path):
    options = ['-o', 'report.interval=1']
    cli('train', tiny, *options)
    folder = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0'
    expected, _ = content_of(folder)
    for name in ('result.json', 'scales.csv', 'log'):
        change_a_digit(folder / name)
    code, out, err = cli('train', tiny, *options)
    why = 'is damaged (it does not fit its checksum in run.json), and kept as'
    assert code == 1 and err.splitlines()[:3] == [
        f'warning: {folder}/log {why} log.damaged',
        f'warning: {folder}/scales.csv {why} scales.csv.damaged',
        'adaptive-seed=0: resumes at iteration 4',
    ]
    lacks = 'scales.csv lacks 4 of 4 iterations'
    assert f'incomplete: adaptive-seed=0: {lacks}' in out.splitlines()
    result = json.loads((folder / 'result.json').read_text())
    assert result['incomplete'] == lacks and result['underflow'] == 'nan'
    assert result['accuracy'] == expected['accuracy']
    read = run_folder.read(str(folder))
    assert read.problem is None and read.scales == [] and len(read.log) == 1
    again = cli('train', tiny, *options)
    assert again[:2] == (1, out) and f'incomplete: {lacks}' in again[2]
    assert cli('train', tiny, *options, '--fresh')[0] == 0
    assert not list(folder.glob('*.damaged'))


@pytest.mark.parametrize(
    'content, jobs',
    [
        ('name: [', []),
        ('a: &a [*a]', []),
        (None, []),
        pytest.param(None, ['--jobs', '2'], marks=pytest.mark.slow),
    ],
)
def test_a_sweep_goes_on_without_a_run_whose_config_is_damaged(cli, tiny, tmp_path, content, jobs):
    cli('train', tiny)
    path = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0' / 'config.yaml'
    if content is None:
        change_a_digit(path)
    else:
        path.write_text(content)
        (path.parent / 'run.json').unlink()
    assert f'fails      {path}' in cli('sweep', tiny, '--dry-run')[1]
    before = files(path.parent)
    code, out, err = cli('sweep', tiny, *jobs)
    said = f'{path} is damaged: --fresh starts over, another --out leaves it as it is ('
    assert code == 1 and f'failed: adaptive-seed=0: {said}' in out
    assert 'fp32-seed=0: accuracy' in err and files(path.parent) == before
    assert run_folder.read(str(path.parents[1] / 'fp32-seed=0')).problem is None
    code, out, err = cli('train', tiny)  # there is no rest to go on with
    assert (code, out) == (2, '') and err.startswith(said) and err.count('\n') == 1


@pytest.mark.parametrize('content', ['[', '[]', '{"starts": [1]}', '{"starts": [{"workers": []}]}'])
def test_a_record_that_is_odd_is_told(cli, tiny, tmp_path, content):
    cli('train', tiny)
    folder = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0'
    (folder / 'run.json').write_text(content)
    code, _, err = cli('train', tiny)
    assert code == 0 and 'finished before' in err
    assert (f'warning: {folder}/run.json is damaged (' in err) == ('workers' not in content)
    (folder / 'result.json').unlink()
    code, _, err = cli('train', tiny)
    if 'workers' in content:
        said = f'{folder}: was begun with [] workers, and there are 1: --fresh'
        assert code == 2 and err.startswith(said) and err.count('\n') == 1
    else:
        assert code == 0 and run_folder.read(str(folder)).problem is None


def test_a_result_reads_as_it_was_written_nan_included(cli, tiny, tmp_path):
    cli('train', tiny, '-o', 'optimizer.lr=1e6', '-o', 'scaling={method: none}')
    path = tmp_path / 'out' / 'tiny' / 'none-seed=0' / 'result.json'
    content = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert content['loss'] == 'nan' and content['iterations'] == 4
    code, out, _ = cli('train', tiny, '-o', 'optimizer.lr=1e6', '-o', 'scaling={method: none}')
    assert code == 0 and 'diverged: none-seed=0' in out


def test_a_sweep_runs_what_is_missing(cli, tiny, tmp_path):
    cli('train', tiny)  # one of the sweep's two runs
    code, out, err = cli('sweep', tiny, '-o', 'sweep.seeds=[0, 1]')
    assert code == 0
    kinds = ['finished before' in line for line in err.splitlines()[:-1]]
    assert kinds == [False, True, False, False]
    again = cli('sweep', tiny, '-o', 'sweep.seeds=[0, 1]')
    assert again[:2] == (code, out) and again[2].count('finished before') == 4


def test_a_run_whose_folder_cannot_be_had_fails_and_the_sweep_goes_on(cli, tiny, tmp_path):
    (tmp_path / 'out' / 'tiny').mkdir(parents=True)
    path = tmp_path / 'out' / 'tiny' / 'fp32-seed=0'
    path.write_text('a file, no folder')
    code, out, err = cli('sweep', tiny)
    assert code == 1 and f'failed: fp32-seed=0: {path}: File exists' in out.splitlines()
    assert (tmp_path / 'out' / 'tiny' / 'adaptive-seed=0' / 'result.json').exists()


def test_the_folder_says_where_its_results_come_from(cli, tiny, tmp_path):
    cli('train', tiny, '-o', 'seed=3')
    folder = tmp_path / 'out' / 'tiny' / 'adaptive-seed=3'
    (start,) = json.loads((folder / 'run.json').read_text())['starts']
    assert start['seed'] == 3 and start['iteration'] == 0 and start['workers'] == 1
    line = ['train', tiny, '-o', 'seed=3', '--out', str(tmp_path / 'out')]
    assert start['command'] == 'python -m experiments ' + ' '.join(line)
    assert set(start['versions']) == {'python', 'numpy', 'chainer', 'chainerlp'}
    assert start['versions']['chainer'] == '7.8.1'
    if start['git'] is not None:  # the tests may run from an archive
        assert len(start['git']['commit']) == 40 and start['git']['dirty'] in (True, False)
    single = loading.load(str(folder / 'config.yaml'))
    assert single == loading.load(tiny, ['seed=3']).single()


def test_without_git_a_run_is_trained_all_the_same(cli, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', '')
    assert cli('train', tiny)[0] == 0
    path = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0' / 'run.json'
    assert json.loads(path.read_text())['starts'][0]['git'] is None


def test_a_dry_run_shows_what_would_run_and_writes_nothing(cli, tiny, tmp_path):
    code, out, err = cli('sweep', tiny, '-o', 'sweep.seeds=[0, 1]', '--dry-run')
    assert code == 0 and not (tmp_path / 'out').exists()
    lines = out.splitlines()
    assert [line.split()[:3] for line in lines[2:6]] == [
        ['fp32-seed=0', 'new', '4'],
        ['adaptive-seed=0', 'new', '4'],
        ['fp32-seed=1', 'new', '4'],
        ['adaptive-seed=1', 'new', '4'],
    ]
    # Each way of scaling is measured once.
    assert err.splitlines() == ['measuring fp32-seed=0', 'measuring adaptive-seed=0']
    seconds = [float(line.split()[3]) for line in lines[2:6]]
    assert seconds[0] == seconds[2] > 0 and seconds[1] == seconds[3] > 0
    to_go = float(lines[7].split()[2])
    assert lines[7].startswith('to go ') and to_go == pytest.approx(4 * sum(seconds), abs=0.06)


def test_a_dry_run_tells_finished_and_half_done_runs(cli, tiny, tmp_path, signalled):
    cli('train', tiny)
    signalled(1, signal.SIGTERM)
    assert cli('train', tiny, '-o', 'scaling={method: fp32}')[0] == 143
    before = files(tmp_path / 'out')
    code, out, err = cli('sweep', tiny, '--dry-run')
    assert code == 0 and err == 'measuring fp32-seed=0\n'
    rows = [line.split() for line in out.splitlines()[2:4]]
    assert rows[0][:5] == ['fp32-seed=0', 'resumes', 'at', '1', '4']
    assert rows[1] == ['adaptive-seed=0', 'finished', '4']
    assert files(tmp_path / 'out') == before
    code, out, _ = cli('sweep', tiny, '--dry-run', '--fresh')
    assert 'finished' not in out and 'resumes' not in out
    assert files(tmp_path / 'out') == before


def test_a_dry_run_tells_what_would_fail(cli, tiny, tmp_path, monkeypatch):
    from experiments.run import optimizers

    def fail(*_):
        raise MemoryError('too large')

    monkeypatch.setattr(optimizers, 'setup', fail)
    code, out, _ = cli('train', tiny, '--dry-run')
    assert code == 1 and out.startswith('fails      MemoryError: too large\nrun ')
    assert not os.path.exists(tmp_path / 'out')
    _, out, _ = cli('sweep', tiny, '--dry-run')
    assert out.count('too large') == 1 and 'too large (2 runs)' in out


def test_a_dry_run_without_data_says_so_once(cli, tiny, tmp_path):
    folder = tmp_path / 'nowhere'
    data = f'dataset={{name: mnist, folder: {folder}}}', 'model={name: cnn}'
    code, out, err = cli('sweep', tiny, '-o', data[0], '-o', data[1], '--dry-run')
    assert (code, out) == (2, '')
    assert err.count(str(folder)) == 1 and len(err.splitlines()) == 2  # the first: what is measured


@pytest.mark.parametrize(
    'arguments, said',
    [
        (['--device', '@numpy,@numpy'], '--device @numpy,@numpy: given 2, allowed: one for each'),
        (['--jobs', '0'], "--jobs: given '0', allowed: an integer >= 1"),
    ],
)
def test_jobs_that_make_no_sense_are_one_line(cli, tiny, arguments, said):
    code, out, err = cli('sweep', tiny, *arguments)
    assert (code, out) == (2, '') and said in err and err.count('\n') == 1


@pytest.mark.parametrize('command', ['train', 'sweep', 'report'])
def test_the_exit_codes_are_in_the_help(cli, command):
    code, out, _ = cli(command, '--help')
    text = ' '.join(out.split())
    assert code == 0
    for said in ('0 done', '1 a run failed', '2 the command or the config', '130', '143'):
        assert said in text


def test_how_examples_are_loaded_may_change_on_the_way(cli, tiny):
    assert cli('train', tiny)[0] == 0
    code, _, err = cli('train', tiny, '-o', 'loading={workers: 1, pool: threads}')
    assert code == 0 and 'finished before' in err


def test_data_that_is_not_there_is_one_line(cli, tiny, tmp_path):
    missing = f'dataset={{name: mnist, folder: {tmp_path / "nothing"}}}'
    code, out, _ = cli('train', tiny, '-o', missing)
    (said,) = [line for line in out.splitlines() if line.startswith('failed: ')]
    assert code == 1 and said.startswith(f'failed: adaptive-seed=0: {tmp_path / "nothing"}: ')


def test_after_fresh_the_way_on_is_without_it(cli, tiny, signalled):
    signalled(2, signal.SIGINT)
    assert cli('train', tiny, '--fresh')[2].endswith('; without --fresh it goes on from there\n')
