"""Under mpiexec the command line trains one model on many workers, by itself."""

import csv
import json
import os
import subprocess
import sys

from experiments import devices, workers
from experiments.errors import ConfigError

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
    assert done.stderr.count('\n') == 1 and done.stderr.startswith('[1/1] adaptive-seed=0: ')
    (folder,) = (out / 'tiny').iterdir()
    # 1437 digits in batches of 128, whatever their number: 22.5 iterations.
    assert {path.name for path in folder.iterdir()} == {
        *('config.yaml', 'log', 'result.json', 'scales.csv', 'snapshot_iter_23')
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
        'from experiments import methods\n'
        'from experiments.__main__ import main\n'
        'def fail(*arguments):\n'
        '    raise ValueError("this worker only")\n'
        'if os.environ["OMPI_COMM_WORLD_RANK"] == "1":\n'
        '    methods.setup = fail\n'
        f'main(["train", {tiny!r}, "--out", {str(tmp_path / "out")!r}])\n'
    )
    done = mpiexec(2, str(program))
    assert done.returncode != 0
    assert 'ValueError: this worker only' in done.stderr
    error = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0' / 'error.txt'
    assert 'this worker only' in error.read_text()


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
        workers.communicator(devices.get('@numpy'))
