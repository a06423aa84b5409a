"""Under mpiexec the command line trains one model on many workers, by itself."""

import csv
import json
import os
import signal
import subprocess
import sys

from experiments.config.errors import ConfigError
from experiments.reports import manifest
from experiments.run import multi_node
from experiments.run.launch import get_device
from tests.experiments import made_up_data

import numpy
import pytest

TEST_EXAMPLES = 360


def read(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


@pytest.mark.mpi
@pytest.mark.parametrize('count', [2, 3])
def test_one_model_is_trained_and_only_the_first_worker_writes_and_prints(
    mpiexec, tiny, tmp_path, count
):
    out = tmp_path / 'out'
    overrides = ['-o', 'train.epochs=2', '-o', 'train.max_iterations=null']
    done = mpiexec(count, '-m', 'experiments', 'train', tiny, '--out', str(out), *overrides)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('skipped    updates') == 1
    line, following = done.stderr.splitlines()
    assert line.startswith('[1/1] adaptive-seed=0: ') and following.startswith('next: ')
    (folder,) = (out / 'tiny').iterdir()
    # 1437 digits in batches of 128, whatever their number: 22.5 iterations.
    assert {path.name for path in folder.iterdir()} == {
        *('.lock', 'config.yaml', 'log', 'result.json', 'run.json', 'scales.csv'),
        'snapshot_iter_23',
    }
    lines = [(row['iteration'], row['layer']) for row in read(folder / 'scales.csv')]
    assert len(lines) == len(set(lines)) == 23 * 2
    with numpy.load(folder / 'snapshot_iter_23') as snapshot:
        assert snapshot['updater/optimizer:main/t'] == 23  # none is spent on the parameters
    entries = json.loads((folder / 'log').read_text())
    assert [entry['iteration'] for entry in entries] == [12, 23]
    assert entries[-1]['validation/main/loss'] < entries[0]['validation/main/loss'] < 2.3
    right = entries[-1]['validation/main/accuracy'] * TEST_EXAMPLES  # each counts once
    assert right == pytest.approx(round(right), abs=1e-3)


@pytest.mark.mpi
def test_a_sweep_trains_every_method(mpiexec, tiny, tmp_path):
    scaling = '[{method: fp32}, {method: none}, {method: fixed, scale: 8}, {method: dynamic},'
    scaling += ' {method: adaptive}, {method: amax}, {method: measured}]'
    done = mpiexec(
        *(2, '-m', 'experiments', 'sweep', tiny, '--out', str(tmp_path)),
        *('-o', f'sweep.scaling={scaling}', '-o', 'train.max_iterations=8'),
    )
    assert done.returncode == 0, done.stderr
    rows = read(tmp_path / 'tiny' / 'summary.csv')
    assert len(rows) == 7
    assert all(float(row['loss']) < 2.3 and row['skipped'] == '0' for row in rows)


@pytest.mark.mpi
def test_a_worker_that_fails_ends_all(mpiexec, tiny, tmp_path):
    program = tmp_path / 'failing.py'
    program.write_text(
        'import os\n'
        'from experiments.__main__ import main\n'
        'from experiments.run import optimizers\n'
        'def fail(*arguments):\n'
        '    raise ValueError("this worker only")\n'
        'if os.environ["OMPI_COMM_WORLD_RANK"] == "1":\n'
        '    optimizers.setup = fail\n'
        f'main(["train", {tiny!r}, "--out", {str(tmp_path / "out")!r}])\n'
    )
    done = mpiexec(2, str(program))
    assert done.returncode != 0
    assert 'ValueError: this worker only' in done.stderr
    error = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0' / 'error.txt'
    assert 'this worker only' in error.read_text()


@pytest.mark.mpi
def test_data_that_is_not_there_is_told_once_and_in_one_line(mpiexec, tiny, tmp_path):
    missing = f'dataset={{name: mnist, folder: {tmp_path / "nothing"}}}'
    done = mpiexec(
        *(2, '-m', 'experiments', 'train', tiny, '--out', str(tmp_path / 'out'), '-o', missing)
    )
    assert done.returncode != 0 and 'Traceback' not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(str(tmp_path))]
    assert len(lines) == 1 and 'nothing' in lines[0]


@pytest.mark.mpi
def test_no_update_of_a_small_cnn_by_adam_is_spent_on_its_parameters(mpiexec, tmp_path):
    made_up_data.mnist(tmp_path / 'mnist')
    config = tmp_path / 'cnn.yaml'
    config.write_text(
        f'name: cnn\ndataset: {{name: mnist, folder: {tmp_path / "mnist"}}}\n'
        'model: {name: cnn, channels: [2, 2, 2]}\noptimizer: {name: adam}\n'
        'train: {batch_size: 10, iterations: 3}\n'
    )
    done = mpiexec(2, '-m', 'experiments', 'train', str(config), '--out', str(tmp_path / 'out'))
    assert done.returncode == 0, done.stderr
    with numpy.load(tmp_path / 'out' / 'cnn' / 'adaptive-seed=0' / 'snapshot_iter_3') as snapshot:
        assert snapshot['updater/optimizer:main/t'] == 3


@pytest.mark.mpi
def test_a_folder_that_cannot_be_had_ends_all_and_is_told_once(mpiexec, tiny, tmp_path):
    (tmp_path / 'out').write_text('a file, no folder')
    done = mpiexec(2, '-m', 'experiments', 'train', tiny, '--out', str(tmp_path / 'out'))
    assert done.returncode == 1
    assert done.stderr.count(f'{tmp_path}/out/tiny: Not a directory\n') == 1


@pytest.mark.mpi
@pytest.mark.slow
@pytest.mark.parametrize('scaling', ['{method: adaptive}', '{method: dynamic, interval: 2}'])
def test_if_one_worker_is_to_stop_all_do_and_go_on_together(mpiexec, tiny, tmp_path, scaling):
    program = tmp_path / 'stopped.py'
    program.write_text(
        'import os, signal, sys\n'
        'from experiments.__main__ import main\n'
        'from chainer.training.updaters import StandardUpdater\n'
        'call = StandardUpdater.update_core\n'
        'def update(self):\n'
        '    if self.iteration == 4 and os.environ["OMPI_COMM_WORLD_RANK"] == "1":\n'
        '        os.kill(os.getpid(), signal.SIGTERM)\n'
        '    call(self)\n'
        'StandardUpdater.update_core = update\n'
        'main(sys.argv[1:])\n'
    )
    arguments = ['-o', f'scaling={scaling}', '-o', 'train.iterations=9']
    arguments += ['-o', 'train.max_iterations=null']
    stopped, whole = ['--out', str(tmp_path / 'stopped')], ['--out', str(tmp_path / 'whole')]
    done = mpiexec(2, str(program), 'train', tiny, *arguments, *stopped)
    assert done.returncode == 0, done.stderr  # of main's exit code the program makes nothing
    assert done.stderr.count('interrupted; 0 of 1 runs') == 1
    (folder,) = (tmp_path / 'stopped' / 'tiny').iterdir()
    assert [path.name for path in folder.glob('snapshot*')] == ['snapshot_iter_5']

    done = mpiexec(2, '-m', 'experiments', 'train', tiny, *arguments, *stopped)
    assert done.returncode == 0 and 'resumes at iteration 5' in done.stderr, done.stderr
    assert mpiexec(2, '-m', 'experiments', 'train', tiny, *arguments, *whole).returncode == 0
    snapshots = []
    for out in ('stopped', 'whole'):
        path = tmp_path / out / 'tiny' / folder.name / 'snapshot_iter_9'
        with numpy.load(path) as file:
            snapshots.append({k: file[k] for k in file.files if k.startswith('updater/')})
    for key, array in snapshots[1].items():
        numpy.testing.assert_array_equal(snapshots[0][key], array, err_msg=key)


def test_only_the_first_worker_tells_a_mistake(cli, tiny, monkeypatch):
    monkeypatch.setenv('OMPI_COMM_WORLD_SIZE', '2')
    for rank, told in (('0', 1), ('1', 0)):
        monkeypatch.setenv('OMPI_COMM_WORLD_RANK', rank)
        for arguments in (['train', tiny, '-o', 'seed=-1'], ['train', '--bogus']):
            code, _, err = cli(*arguments)
            assert (code, err.count('\n')) == (2, told)


def test_jobs_and_mpiexec_exclude_each_other(cli, tiny, monkeypatch):
    monkeypatch.setenv('OMPI_COMM_WORLD_SIZE', '2')
    code, _, err = cli('sweep', tiny, '--jobs', '2')
    assert (code, err) == (2, '--jobs 2: under mpiexec all processes work on one run\n')


def test_a_run_goes_on_with_as_many_workers_as_it_was_begun_with(cli, tiny, tmp_path, signalled):
    signalled(2, signal.SIGTERM)
    assert cli('train', tiny)[0] == 143
    folder = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0'
    noted = manifest.read(folder)
    noted.starts[-1]['workers'] = 2
    noted.write(folder)
    code, _, err = cli('train', tiny)
    assert code == 2 and 'was begun with 2 workers, and there are 1: --fresh starts over' in err
    assert cli('train', tiny, '--fresh')[0] == 0


def test_alone_mpi_is_not_imported(tiny, tmp_path):
    program = (
        'import sys\n'
        'from experiments.__main__ import main\n'
        f'assert main(["train", {tiny!r}, "--out", {str(tmp_path / "out")!r}]) == 0\n'
        'assert not {"mpi4py", "chainermn"} & set(sys.modules)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', program],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_under_mpi_without_mpi4py_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv('PMI_SIZE', '2')
    monkeypatch.setitem(sys.modules, 'chainermn', None)
    with pytest.raises(ConfigError, match=r"many workers need an MPI and: pip install '.\[mpi\]'"):
        multi_node.create_communicator(get_device('@numpy'))
