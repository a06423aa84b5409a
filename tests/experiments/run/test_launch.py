"""Ctrl-C and SIGTERM finish the iteration and leave a snapshot; once more, they stop at once."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from chainerlp import compat
from experiments.config.errors import ConfigError
from experiments.run.launch import get_device

import chainer
import numpy
import pytest

pytestmark = pytest.mark.skipif(os.name == 'nt', reason='sends signals')
ROOT = pathlib.Path(__file__).parents[3]
MESSAGE = 'stopping at the end of this iteration, with a snapshot; once more to stop at once'


def snapshots(folder):
    return sorted(path.name for path in folder.glob('snapshot*'))


def weights(folder):
    with numpy.load(folder / 'snapshot_iter_4') as file:
        return {key: file[key] for key in file.files if key.startswith('updater/model')}


@pytest.mark.parametrize('number, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_run_with_a_snapshot_and_the_same_command_goes_on(
    cli, tiny, tmp_path, signalled, number, code
):
    folder = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0'
    signalled(2, number)
    before = signal.getsignal(number)
    assert cli('train', tiny) == (
        code,
        '',
        f'{MESSAGE}\ninterrupted; 0 of 1 runs are in {folder.parent}; the same command goes on'
        ' from there\n',
    )
    assert signal.getsignal(number) == before
    assert snapshots(folder) == ['snapshot_iter_2']
    assert not (folder / 'error.txt').exists() and not (folder / 'result.json').exists()
    code, out, err = cli('train', tiny)
    assert code == 0 and err.startswith('adaptive-seed=0: resumes at iteration 2\n')
    assert cli('train', tiny, '-o', 'name=whole')[0] == 0
    whole = tmp_path / 'out' / 'whole' / 'adaptive-seed=0'
    for key, array in weights(whole).items():
        numpy.testing.assert_array_equal(weights(folder)[key], array)


def test_a_second_ctrl_c_stops_at_once(cli, tiny, tmp_path, signalled):
    signalled(3, signal.SIGINT, signal.SIGINT)
    code, out, err = cli('train', tiny, '-o', 'train.snapshot={iterations: 1}')
    assert (code, out) == (130, '') and err.splitlines()[0] == MESSAGE
    assert snapshots(tmp_path / 'out' / 'tiny' / 'adaptive-seed=0') == [
        *('snapshot_iter_1', 'snapshot_iter_2')
    ]


def test_a_run_that_is_stopped_in_its_last_iteration_is_finished(cli, tiny, tmp_path, signalled):
    signalled(4, signal.SIGINT)
    code, out, _ = cli('train', tiny)
    assert code == 0 and out.startswith('method')


def test_a_sweep_that_is_stopped_begins_no_other_run(cli, tiny, tmp_path, signalled):
    signalled(4, signal.SIGINT)
    code, out, err = cli('sweep', tiny)
    assert (code, out) == (130, '') and 'interrupted; 1 of 2 runs are in' in err
    assert not (tmp_path / 'out' / 'tiny' / 'adaptive-seed=0').exists()


def wait_for(condition):
    for _ in range(600):  # up to a minute
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError('waited for too long')


@pytest.fixture
def started(tmp_path):
    """Starts the command line, in a process group of its own as a shell does."""
    processes = []

    def start(*arguments):
        processes.append(
            subprocess.Popen(
                [sys.executable, '-m', 'experiments', *arguments, '--out', str(tmp_path / 'out')],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()


LONG = ['-o', 'train.iterations=1000000', '-o', 'train.max_iterations=null']


@pytest.mark.slow
def test_ctrl_c_stops_all_jobs_of_a_sweep_cleanly(tiny, tmp_path, started):
    folder = tmp_path / 'out' / 'tiny'
    process = started('sweep', tiny, *LONG, '--jobs', '2', '-o', 'sweep.seeds=[0, 1]')
    wait_for(lambda: len({path.parent for path in folder.glob('*/snapshot_iter_*[0-9]')}) == 2)
    pids = [int(path.read_text()) for path in folder.glob('*/.lock')]
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines() == [
        MESSAGE,
        f'interrupted; 0 of 4 runs are in {folder}; the same command goes on from there',
    ]
    assert len(pids) == 2 and not any(pathlib.Path(f'/proc/{pid}').exists() for pid in pids)
    for run in ('fp32-seed=0', 'adaptive-seed=0'):
        assert not list((folder / run).glob('*unfinished*'))
        last = max(int(path.name.rpartition('_')[2]) for path in (folder / run).glob('snapshot*'))
        with numpy.load(folder / run / f'snapshot_iter_{last}') as file:
            assert file['updater/iteration'] == last
    assert {path.name for path in folder.iterdir()} == {'fp32-seed=0', 'adaptive-seed=0'}


@pytest.mark.slow
def test_jobs_end_with_a_sweep_that_is_killed_and_the_same_command_goes_on(tiny, tmp_path, started):
    folder = tmp_path / 'out' / 'tiny'
    process = started('sweep', tiny, *LONG, '--jobs', '2')
    wait_for(lambda: len({path.parent for path in folder.glob('*/snapshot_iter_*[0-9]')}) == 2)
    pids = [int(path.read_text()) for path in folder.glob('*/.lock')]
    process.kill()
    process.wait(timeout=60)
    assert len(pids) == 2
    wait_for(lambda: not any(pathlib.Path(f'/proc/{pid}').exists() for pid in pids))
    again = started('sweep', tiny, *LONG, '--jobs', '2')
    wait_for(lambda: len(read_starts(folder)) == 4)
    os.killpg(again.pid, signal.SIGINT)
    _, err = again.communicate(timeout=60)
    assert again.returncode == 130 and err.count('resumes at iteration') == 2


def read_starts(folder):
    runs = [json.loads(path.read_text()) for path in folder.glob('*/run.json')]
    return [start for run in runs for start in run['starts']]


@pytest.mark.slow
def test_a_job_that_dies_is_listed_and_the_others_go_on(tiny, tmp_path, started):
    folder = tmp_path / 'out' / 'tiny'
    more = ['-o', 'train.iterations=60', '-o', 'train.max_iterations=null']
    more += ['-o', 'train.snapshot={iterations: 1}']
    more += ['-o', 'sweep.scaling=[{method: fp32}, {method: adaptive}, {method: none}]']
    process = started('sweep', tiny, *more, '--jobs', '2')
    victim = folder / 'adaptive-seed=0'
    wait_for(lambda: list(victim.glob('snapshot_iter_*[0-9]')))
    os.kill(int((victim / '.lock').read_text()), signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert 'failed: adaptive-seed=0: its process was killed by signal 9' in out.splitlines()
    assert len(list(folder.glob('*/result.json'))) == 2

    again = started('sweep', tiny, *more, '--jobs', '2')
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert err.count('finished before') == 2 and 'adaptive-seed=0: resumes at iteration' in err
    starts = json.loads((victim / 'run.json').read_text())['starts']
    assert len(starts) == 2 and starts[1]['iteration'] > 0


@pytest.mark.slow
def test_runs_of_several_jobs_give_what_they_give_one_after_another(cli, tiny, tmp_path, started):
    assert cli('sweep', tiny, '-o', 'name=one')[0] == 0
    two = started('sweep', tiny, '-o', 'name=two', '--jobs', '2')
    out, err = two.communicate(timeout=120)
    assert two.returncode == 0, err
    assert sorted(line[:6] for line in err.splitlines()) == ['[1/2] ', '[2/2] ', 'next: ']
    for run in ('fp32-seed=0', 'adaptive-seed=0'):
        of_one, of_two = (weights(tmp_path / 'out' / name / run) for name in ('one', 'two'))
        for key, array in of_one.items():
            numpy.testing.assert_array_equal(of_two[key], array)
    rows = [(tmp_path / 'out' / name / 'summary.csv').read_text() for name in ('one', 'two')]
    first, second = ([row.rsplit(',', 2)[::2] for row in text.splitlines()] for text in rows)
    assert first == second  # but for the seconds, and in the same order


def test_a_device_that_is_not_there_is_an_error_of_one_line():
    assert get_device('@numpy') == get_device('-1') == chainer.get_device('@numpy')
    reason = compat.why_no_cupy()
    if reason is None:
        pytest.skip('there is a GPU')
    with pytest.raises(ConfigError) as error:
        get_device('@cupy:0')
    assert str(error.value) == (
        f'--device @cupy:0: {reason}; allowed: @numpy, or @cupy:0 with CuPy and a GPU'
    )
    with pytest.raises(ConfigError, match='^--device nowhere: .*; allowed: @numpy, or @cupy:0'):
        get_device('nowhere')


def test_a_training_for_another_number_of_workers_is_refused_before_it_begins(cli, tiny, tmp_path):
    code, _, err = cli('train', tiny, '-o', 'train.workers=16')
    assert (code, err) == (
        2,
        f'{tiny}: train.workers: given 16, but 1 started; allowed: mpiexec -n 16, or'
        ' -o train.workers=null for a training of its own\n',
    )
    assert not (tmp_path / 'out').exists()
    assert cli('train', tiny, '-o', 'train.workers=16', '--dry-run')[0] == 0
    assert cli('train', tiny, '-o', 'train.workers=1')[0] == 0


@pytest.mark.parametrize('module', ['numpy', 'pydantic', 'threadpoolctl'])
@pytest.mark.parametrize('before, code', [(signal.SIG_DFL, -signal.SIGINT), (signal.SIG_IGN, 7)])
def test_ctrl_c_amidst_the_imports_ends_without_a_traceback(tmp_path, module, before, code):
    name = f'{module}.py'  # found before the real one, it stands for Ctrl-C while that is imported
    kill = 'import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit(7)\n'
    (tmp_path / name).write_text(kill)
    done = subprocess.run(
        [sys.executable, '-m', 'experiments', 'report', 'none'],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(tmp_path)),
        preexec_fn=lambda: signal.signal(signal.SIGINT, before),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, '', '')
