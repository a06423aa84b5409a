"""However a stopped run's files are damaged, it ends as it would have, or says what is lost."""

import json
import os
import random
import shutil
import signal

from experiments.__main__ import main
from experiments.reports.manifest import Part
from experiments.run import snapshots
from tests.experiments.damage import damaged, within

import pytest
from chainer.training.updaters import StandardUpdater

CONFIG = """\
name: tiny
dataset: {name: digits}
model: {name: mlp, layers: 3, units: 8}
optimizer: {name: momentum_sgd, lr: 0.05}
train: {batch_size: 64, iterations: 6, snapshot: {iterations: 2}, evaluate: {iterations: 2}}
report: {interval: 1}
sweep: {seeds: [0], scaling: [{method: fp32}, {method: adaptive}]}
"""
SECONDS = 60


class Runs:
    """Runs of one config: those that went through in ``whole``, and interrupted ones."""

    def __init__(self, folder):
        self._config = folder / 'tiny.yaml'
        self._config.write_text(CONFIG)
        self.whole, self.stopped = folder / 'whole', folder / 'stopped'
        for method in ('fp32', 'adaptive'):
            assert self.train(self.whole, method) == 0
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(StandardUpdater, 'update_core', stops_in_the_5th_iteration)
                assert self.train(self.stopped, method) == 143

    def train(self, out, method='adaptive'):
        """Trains it with a way of scaling; returns the exit code."""
        scaling = f'scaling={{method: {method}}}'
        options = ['--out', str(out), '--quiet', '-o', scaling]
        return main(['train', str(self._config), *options])


def stops_in_the_5th_iteration(self, update=StandardUpdater.update_core):
    if self.iteration == 4:
        os.kill(os.getpid(), signal.SIGTERM)
    update(self)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp('runs'))


def outcome(run):
    """What a run came to, but times."""
    result = json.loads((run / 'result.json').read_text())
    del result['seconds']
    return result


def is_same(path, part):
    is_so_large = path.is_file() and path.stat().st_size == part.size
    return is_so_large and Part.of(path.read_bytes()) == part


def check(runs, work, rng, names, capfd):
    """Damages some of the files of a run, and goes on with it."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(runs.stopped, work)
    run, other = work / 'tiny' / 'adaptive-seed=0', work / 'tiny' / 'fp32-seed=0'
    before = {name: Part.of((run / name).read_bytes()) for name in names}
    case = {name: damaged(run / name, rng, other) for name in names}
    spoilt = [name for name in names if not is_same(run / name, before[name])]
    capfd.readouterr()
    with within(SECONDS):
        code = runs.train(work)
    out, err = capfd.readouterr()
    assert 'Traceback' not in out + err and code in (0, 1, 2), (case, err)
    assert not list(run.glob('*unfinished*')) and 'failed' not in err, (case, err)
    if code == 2:
        assert 'config.yaml' in names and err.startswith(f'{run}/') and err.count('\n') == 1, case
        return err
    expected, found = outcome(runs.whole / 'tiny' / 'adaptive-seed=0'), outcome(run)
    lacks = found.pop('incomplete', None)
    assert (lacks is not None) == (code == 1), (case, err)
    if lacks is not None:
        assert f'{run}/scales.csv is damaged (' in err or 'run.json' in names, (case, err)
        expected = {k: v for k, v in expected.items() if not k.startswith('underflow')}
    assert {key: found[key] for key in expected} == expected, (case, err)
    assert snapshots.found(str(run)) == [6], case
    if names[0].startswith('snapshot') and 'run.json' not in names and spoilt:
        newest = 'snapshot_iter_5' in spoilt
        is_told = f'warning: {run}/snapshot_iter_5 is damaged (' in err
        assert is_told == (newest and case['snapshot_iter_5'] != 'remove'), (case, err)
        at = 5 if not newest else 4 if 'snapshot_iter_4' not in spoilt else None
        all_are_gone = list(case.values()) == ['remove'] * 2
        said = f'resumes at iteration {at}' if at else 'begins anew'
        assert all_are_gone or said in err, (case, err)
    return err


SNAPSHOTS = [
    *(['snapshot_iter_5'], ['snapshot_iter_4'], ['snapshot_iter_5', 'snapshot_iter_4']),
    *(['snapshot_iter_5', 'run.json'], ['snapshot_iter_4', 'run.json'], ['run.json']),
]
FILES = [['scales.csv'], ['log'], ['config.yaml'], ['scales.csv', 'log', 'snapshot_iter_5']]


@pytest.mark.parametrize('seed, names', list(enumerate([*SNAPSHOTS, *FILES])))
def test_a_damaged_run_ends_as_it_would_have_or_says_what_it_lost(
    runs, tmp_path, capfd, seed, names
):
    check(runs, tmp_path / 'work', random.Random(seed), names, capfd)


@pytest.mark.slow
def test_so_does_each_of_a_thousand(runs, tmp_path, capfd):
    rng = random.Random(1)
    for number in range(1000):
        names = rng.choice(SNAPSHOTS if number % 4 else FILES)
        check(runs, tmp_path / 'work', rng, names, capfd)
