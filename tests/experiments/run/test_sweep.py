import csv
import os
import re

from experiments.run import optimizers, train

import pytest

COLUMNS = (
    'name,dtype,method,seed,accuracy,loss,underflow,underflow_unscaled,'
    'gradient_error,skipped,seconds,incomplete'
).split(',')


def rows_of(folder):
    with open(folder / 'out' / 'tiny' / 'summary.csv', newline='') as file:
        reader = csv.DictReader(file)
        assert reader.fieldnames == COLUMNS
        return list(reader)


def test_a_sweep_prints_a_table_and_writes_a_summary(cli, tiny, tmp_path):
    code, out, err = cli('sweep', tiny, '-o', 'sweep.seeds=[0, 1]')
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[2:4]] == [['fp32', '2'], ['adaptive', '2']]
    assert lines[-1] == str(tmp_path / 'out' / 'tiny' / 'summary.csv')
    rows = rows_of(tmp_path)
    assert [row['name'] for row in rows] == [
        'fp32-seed=0',
        'adaptive-seed=0',
        'fp32-seed=1',
        'adaptive-seed=1',
    ]
    assert [row['dtype'] for row in rows] == ['float32', 'mixed16'] * 2
    for row in rows:
        assert 0 <= float(row['accuracy']) <= 1
        assert 0 <= float(row['underflow']) <= 1
        assert 0 <= float(row['underflow_unscaled']) <= 1
        assert row['skipped'] == '0'
        assert float(row['seconds']) > 0
        assert (tmp_path / 'out' / 'tiny' / row['name'] / 'log').exists()


def test_without_a_terminal_progress_is_one_line_a_run(cli, tiny):
    _, _, err = cli('sweep', tiny)
    lines = err.splitlines()
    begun = [line.split(':')[0] for line in lines]
    assert begun == ['[1/2] fp32-seed=0', '[2/2] adaptive-seed=0', 'next']
    assert lines[0].endswith(' s left')
    assert re.search(r'accuracy \d+\.\d\d%', lines[0]) and ' s' in lines[0]


def test_train_runs_the_one_scaling_of_the_config(cli, tiny, tmp_path):
    code, out, _ = cli('train', tiny, '-o', 'seed=5', '--quiet')
    assert code == 0
    folder = tmp_path / 'out' / 'tiny' / 'adaptive-seed=5'
    assert out.splitlines()[-1] == str(folder)
    assert (folder / 'snapshot_iter_4').exists()


def test_a_run_that_fails_is_listed_and_does_not_stop_the_sweep(cli, tiny, tmp_path, monkeypatch):
    setup = optimizers.setup

    def failing(optimizer, model, scaling):
        if scaling.method == 'fp32':
            raise RuntimeError('no luck')
        return setup(optimizer, model, scaling)

    monkeypatch.setattr(optimizers, 'setup', failing)
    code, out, err = cli('sweep', tiny)
    assert code == 1
    assert 'failed: fp32-seed=0: RuntimeError: no luck' in out.splitlines()
    assert 'Traceback' not in err
    failed, passed = rows_of(tmp_path)
    assert (failed['name'], failed['accuracy'], failed['skipped']) == ('fp32-seed=0', 'nan', 'nan')
    assert float(passed['accuracy']) > 0


@pytest.mark.filterwarnings('ignore:.* left float16')
def test_a_run_that_diverges_is_listed_and_is_no_failure(cli, tiny, tmp_path):
    code, out, _ = cli('sweep', tiny, '-o', 'optimizer.lr=1e6', '-o', 'train.max_iterations=8')
    assert code == 0
    assert 'diverged: fp32-seed=0' in out.splitlines()
    assert rows_of(tmp_path)[0]['loss'] == 'nan'


def test_the_summary_is_there_after_every_run_and_stays_if_interrupted(
    cli, tiny, tmp_path, monkeypatch
):
    run = train.run

    def interrupted(config, *arguments):
        if config.scaling.method == 'adaptive':
            assert [row['name'] for row in rows_of(tmp_path)] == ['fp32-seed=0']
            raise KeyboardInterrupt
        return run(config, *arguments)

    monkeypatch.setattr(train, 'run', interrupted)
    code, out, err = cli('sweep', tiny)
    assert (code, out) == (130, '')
    folder = tmp_path / 'out' / 'tiny'
    assert err.splitlines()[1:] == [
        f'interrupted; 1 of 2 runs are in {folder}; the same command goes on from there'
    ]
    assert [row['name'] for row in rows_of(tmp_path)] == ['fp32-seed=0']
    assert os.listdir(folder).count('summary.csv.unfinished') == 0


def test_a_folder_that_cannot_be_written_is_one_line(cli, tiny, tmp_path):
    (tmp_path / 'out').write_text('a file, no folder')
    code, out, err = cli('train', tiny)
    assert (code, out) == (1, '')
    assert err == f'{tmp_path / "out" / "tiny"}: Not a directory\n'
