"""However a run's folder is damaged, a report says so or shows what was there, and goes on."""

import os
import random
import re
import shutil
import signal

from experiments.__main__ import main
from experiments.reports import report, run_folder
from experiments.run import train
from tests.experiments.damage import damaged, within

import pytest
from chainer import training

CONFIG = """\
name: tiny
dataset: {name: digits}
model: {name: mlp, layers: 3, units: 16}
optimizer: {name: momentum_sgd, lr: 0.05}
train: {batch_size: 64, iterations: 6, snapshot: {iterations: 2}, evaluate: {iterations: 2}}
report: {interval: 1, gradient_error: 2, predictions: true, comparison: 2}
sweep: {seeds: [0], scaling: [{method: fp32}, {method: adaptive}]}
"""
LEFT = ('.lock', 'gradient_error.png')  # what no report reads, and snapshots
DATA = ('config', 'log', 'scales', 'errors', 'nonzero', 'predictions', 'comparison', 'result')
SECONDS = 20


class StopAt(training.Extension):
    """Asks for a stop in an iteration."""

    name, trigger = 'StopAt', (1, 'iteration')
    iteration = 5

    def __call__(self, trainer):
        if trainer.updater.iteration == self.iteration:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """A folder with two runs that have ended, and two that were interrupted."""
    folder = tmp_path_factory.mktemp('runs')
    config = folder / 'tiny.yaml'
    config.write_text(CONFIG)
    assert main(['sweep', str(config), '--out', str(folder / 'ended'), '--quiet']) == 0
    bare = train._bare_trainer

    def stopping(*arguments):
        trainer, data = bare(*arguments)
        trainer.extend(StopAt())
        return trainer, data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, '_bare_trainer', stopping)
        for method in ('fp32', 'adaptive'):
            scaling = f'scaling={{method: {method}}}'
            command = ['train', str(config), '--out', str(folder / 'stopped'), '--quiet']
            assert main([*command, '-o', scaling]) == 143
    return folder


def begins(value, expected):
    return isinstance(value, list) and repr(value[: len(expected)]) == repr(expected)


def check(runs, work, rng, is_reported):
    """Damages a file or two of a run of two; what is shown is marked, or as it was."""
    state = rng.choice(['ended', 'stopped'])
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(runs / state, work)
    run, other = work / 'tiny' / 'adaptive-seed=0', work / 'tiny' / 'fp32-seed=0'
    was, others = run_folder.read(str(run)), run_folder.read(str(other))
    names = sorted(p.name for p in run.iterdir() if not p.name.startswith(('snapshot', *LEFT)))
    chosen = rng.sample(names, rng.choice([1, 1, 1, 2]))
    case = state, {name: damaged(run / name, rng, other) for name in chosen}
    with within(SECONDS):
        found = run_folder.read(str(run))
        assert repr(run_folder.read(str(other))) == repr(others), case
        if is_reported:
            assert main(['report', str(work), '--html', '--out', str(work)]) == 0, case
            text = (work / 'report.md').read_text(encoding='utf-8')
            whole = (found.problem is None) + (state == 'ended')
            assert text.startswith(f'# Runs\n\n{whole} finished of 2'), case
            assert ('- `tiny/adaptive-seed=0`: ' in text) == (found.problem is not None), case
    if len(chosen) == 2 and 'run.json' in chosen:  # it is marked as a whole
        assert found.problem is not None or not found.is_verified, case
        return found.problem
    for name in DATA:
        value, expected = getattr(found, name), getattr(was, name)
        is_empty = not value and found.problem is not None
        # What came after the last snapshot is not known to be whole: the run has not ended.
        is_same = repr(value) == repr(expected) or (state == 'stopped' and begins(value, expected))
        assert is_empty or is_same, (name, case)
    return found.problem


def test_a_damaged_run_shows_nothing_that_it_was_not(runs, tmp_path):
    rng = random.Random(0)
    problems = [check(runs, tmp_path / 'work', rng, False) for _ in range(100)]
    assert sum(problem is not None for problem in problems) > 80
    assert all('\n' not in problem for problem in problems if problem is not None)


@pytest.mark.parametrize('names', [['scales.csv'], ['log', 'result.json'], ['run.json']])
def test_a_report_lists_a_damaged_run_and_goes_on(runs, tmp_path, names):
    folder = shutil.copytree(runs / 'ended' / 'tiny', tmp_path / 'tiny')
    for name in names:
        (folder / 'adaptive-seed=0' / name).write_bytes(b'\xff')
    assert main(['report', str(folder), '--html']) == 0
    text = (folder / 'report.md').read_text(encoding='utf-8')
    assert '1 finished of 2' in text and re.search(r'^\| `fp32-seed=0` \| [\d.]+% ', text, re.M)
    (line,) = [line for line in text.splitlines() if line.startswith('- `tiny/adaptive-seed=0`')]
    assert all(f'{name} is damaged (' in line for name in names)


@pytest.mark.slow
def test_a_thousand_damaged_runs_show_nothing_that_they_were_not(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(report, '_picture', lambda *arguments: '')
    rng = random.Random(1)
    for _ in range(1000):
        check(runs, tmp_path / 'work', rng, is_reported=True)
