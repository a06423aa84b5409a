"""A run that is killed, whatever it was doing, goes on as if it had not been."""

import contextlib
import csv
import json
import os
import random
import resource
import shutil
import signal
import time
import warnings

from experiments.config import loading
from experiments.models.small_models import MLP
from experiments.reports import manifest
from experiments.run import log, resume, snapshots, train
from experiments.run.launch import Launch, get_device
from experiments.tasks.task import Evaluator

import numpy
import pytest
from chainer import functions, training

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='kills forked processes')

ITERATIONS = 9
OVERRIDES = [
    f'train.iterations={ITERATIONS}',
    'train.max_iterations=null',
    'train.batch_size=300',  # an epoch ends within the 5th iteration
    'train.evaluate={iterations: 3}',
    'train.snapshot={iterations: 2}',
    'report.interval=2',
    'optimizer={name: adam, alpha: 0.01, weight_decay: 1e-3}',
    'schedule={step: {iterations: [4], factor: 0.5}}',
]
SCALINGS = {
    'fp32': 'scaling={method: fp32}',
    'dynamic': 'scaling={method: dynamic, interval: 2}',
    'adaptive': 'scaling={method: adaptive, interval: 4}',
    'measured': 'scaling={method: measured, initial_scale: auto}',
}


@pytest.fixture(autouse=True)
def dropout(monkeypatch):
    """Gives the MLP dropout, which draws from the global generator."""
    forward = MLP.forward
    monkeypatch.setattr(MLP, 'forward', lambda self, x: forward(self, functions.dropout(x, 0.2)))


def run(tiny, folder, scaling='adaptive', more=(), extras=()):
    config = loading.load(tiny, [*OVERRIDES, SCALINGS[scaling], *more]).single()
    return train.run(config, str(folder), Launch(get_device('@numpy')), extras)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def forked(function):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)  # other tests leave threads behind
        pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(3)
    return pid


def killed(tiny, folder, scaling, place, iteration):
    """Runs in a process that kills itself at the given place in the given iteration."""
    pid = forked(lambda: run(tiny, folder, scaling, extras=[Killer(place, iteration)]))
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


class Killer(training.Extension):
    """Kills the process in an iteration: while it updates, evaluates, writes ..."""

    name = 'Killer'
    trigger = (1, 'iteration')
    priority = training.PRIORITY_WRITER - 1  # after the scales are written

    def __init__(self, place, iteration):
        self._place = place
        self._iteration = iteration

    def initialize(self, trainer):
        self._trainer = trainer
        getattr(self, f'_in_{self._place}')()

    def __call__(self, trainer):
        if self._place == 'scales' and trainer.updater.iteration == self._iteration:
            path = os.path.join(trainer.out, 'scales.csv')
            os.truncate(path, os.path.getsize(path) - 30)
            die()

    def _is_now(self):
        return self._trainer.updater.iteration == self._iteration

    def _in_scales(self):
        pass

    def _in_update(self):
        def hook(rule, param):
            if self._trainer.updater.iteration == self._iteration - 1:
                die()

        model = self._trainer.updater.get_optimizer('main').target
        model.predictor.fc2.W.update_rule.add_hook(hook, 'hook')

    def _in_evaluation(self):
        get_iterator = Evaluator.get_iterator

        def batches(evaluator, name):
            class OneAndDeath:
                def reset(self):
                    get_iterator(evaluator, name).reset()

                def __iter__(self):
                    yield next(get_iterator(evaluator, name))
                    die()

            return OneAndDeath() if self._is_now() else get_iterator(evaluator, name)

        Evaluator.get_iterator = batches

    def _in_snapshot(self):
        atomic_write = snapshots.atomic_write

        @contextlib.contextmanager
        def half(path):
            with atomic_write(path) as unfinished:
                yield unfinished
                if self._is_now():
                    os.truncate(unfinished, os.path.getsize(unfinished) // 2)
                    die()

        snapshots.atomic_write = half

    def _in_renaming(self):
        def keep(*arguments):
            if self._is_now():
                die()

        snapshots.keep = keep

    def _in_removal(self):
        def remove(path):
            if manifest.read(self._trainer.out).has_ended:  # it is the very last one
                die()
            os.remove(path)

        snapshots.remove = remove

    def _in_log(self):
        write_text = log.write_text

        def half(path, text):
            if self._is_now():
                with open(f'{path}.unfinished', 'w') as file:
                    file.write(text[: len(text) // 2])
                die()
            write_text(path, text)

        log.write_text = half

    def _in_result(self):
        def write_text(*arguments):
            die()

        train.write_text = write_text


def final(folder):
    """Everything that a run leaves, but times."""
    with numpy.load(folder / f'snapshot_iter_{ITERATIONS}') as file:
        state = {k: v for k, v in file.items() if 'elapsed_time' not in k and '/_log' not in k}
    del state['run']
    with open(folder / 'scales.csv', newline='') as file:
        scales = list(csv.reader(file))
    entries = json.loads((folder / 'log').read_text())
    result = json.loads((folder / 'result.json').read_text())
    for content in [*entries, result]:
        for key in ('elapsed_time', 'seconds', *log.THROUGHPUT_KEYS):
            content.pop(key, None)
    return state, scales, entries, result


def assert_same(folder, whole):
    state, *files = final(folder)
    expected, *expected_files = final(whole)
    state = {key: value for key, value in state.items() if 'Killer' not in key}
    assert set(state) == set(expected)
    for key in expected:
        numpy.testing.assert_array_equal(state[key], expected[key], err_msg=key)
    assert files == expected_files
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}


@pytest.fixture(scope='module')
def wholes():
    return {}


@pytest.fixture
def whole(tiny, tmp_path_factory, wholes):
    """Gives the folder of an uninterrupted run."""

    def get(scaling):
        if scaling not in wholes:
            wholes[scaling] = tmp_path_factory.mktemp(scaling)
            assert run(tiny, wholes[scaling], scaling).error is None
        return wholes[scaling]

    return get


@pytest.mark.parametrize(
    'place, iteration',
    [
        ('update', 1),
        ('update', 7),
        ('scales', 6),
        ('evaluation', 6),
        ('log', 6),
        ('snapshot', 2),
        ('snapshot', 6),
        ('renaming', 6),
        ('removal', ITERATIONS),
        ('result', ITERATIONS),
    ],
)
def test_a_killed_run_ends_as_if_it_had_not_been_killed(
    tiny, tmp_path, whole, capfd, place, iteration
):
    folder = tmp_path / 'killed'
    killed(tiny, folder, 'adaptive', place, iteration)
    assert run(tiny, folder).error is None
    ended = iteration if place in ('renaming', 'removal', 'result') else iteration - 1
    at = ITERATIONS if ended == ITERATIONS else ended // 2 * 2
    said = f'adaptive-interval=4-seed=0: resumes at iteration {at}\n' if at else ''
    assert capfd.readouterr().err == said
    assert_same(folder, whole('adaptive'))


@pytest.mark.parametrize('scaling', SCALINGS)
def test_a_run_that_is_killed_again_and_again_does_too(tiny, tmp_path, whole, scaling):
    folder = tmp_path / 'killed'
    for place, iteration in [('update', 4), ('snapshot', 4), ('evaluation', 6), ('scales', 8)]:
        killed(tiny, folder, scaling, place, iteration)
    assert run(tiny, folder, scaling).error is None
    assert_same(folder, whole(scaling))
    starts = json.loads((folder / 'run.json').read_text())['starts']
    assert [start['iteration'] for start in starts] == [0, 2, 2, 4, 6]


def test_a_run_that_is_killed_at_any_time_does_too(tiny, tmp_path, whole):
    rng = random.Random(0)
    for _ in range(6):
        pid = forked(lambda: run(tiny, tmp_path / 'killed', 'measured'))
        time.sleep(rng.uniform(0, 0.4))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert run(tiny, tmp_path / 'killed', 'measured').error is None
    assert_same(tmp_path / 'killed', whole('measured'))


def test_a_run_that_is_killed_while_it_makes_a_damaged_result_again_makes_it_once_more(
    tiny, tmp_path, whole
):
    folder = tmp_path / 'killed'
    shutil.copytree(whole('adaptive'), folder)
    path = folder / 'result.json'
    path.write_text(path.read_text().replace('"loss": ', '"loss": 9'))
    killed(tiny, folder, 'adaptive', 'result', ITERATIONS)
    assert not path.exists()
    assert run(tiny, folder).is_new
    assert_same(folder, whole('adaptive'))


def make_old(folder):
    """Leaves in the manifest what older versions had there."""
    path = folder / 'run.json'
    path.write_text(json.dumps({'starts': json.loads(path.read_text())['starts']}))


def damage(path, how):
    if how == 'empty':
        os.truncate(path, 0)
    elif how == 'cut off':
        os.truncate(path, path.stat().st_size // 2)
    elif how == 'overwritten':
        path.write_bytes(b'no snapshot')
    elif how == 'one bit of its directory changed':  # the comment of the first file is the rest
        content = bytearray(path.read_bytes())
        content[content.index(b'PK\x01\x02') + 33] ^= 0x40
        path.write_bytes(content)
    else:  # one byte of an array
        with numpy.load(path) as file:
            wanted = file['updater/model:main/predictor/fc1/W'].tobytes()
        content = bytearray(path.read_bytes())
        content[content.index(wanted) + 5] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize(
    'how',
    ['empty', 'cut off', 'overwritten', 'one bit changed', 'one bit of its directory changed'],
)
@pytest.mark.parametrize('is_old', [False, True], ids=['', 'of an older version'])
def test_a_damaged_snapshot_is_named_and_the_one_before_is_taken(
    tiny, tmp_path, whole, capfd, how, is_old
):
    folder = tmp_path / 'killed'
    killed(tiny, folder, 'adaptive', 'update', 8)
    damage(folder / 'snapshot_iter_6', how)
    if is_old:
        make_old(folder)
    assert run(tiny, folder).error is None
    why = (
        'no whole zip file, or of another run'
        if is_old
        else 'it does not fit its checksum in run.json'
    )
    assert capfd.readouterr().err.splitlines() == [
        f'warning: {folder}/snapshot_iter_6 is damaged ({why})',
        'adaptive-interval=4-seed=0: resumes at iteration 4',
    ]
    assert_same(folder, whole('adaptive'))


def test_a_run_without_an_intact_snapshot_begins_anew_and_says_so(tiny, tmp_path, whole, capfd):
    folder = tmp_path / 'killed'
    killed(tiny, folder, 'adaptive', 'update', 8)
    for path in folder.glob('snapshot_iter_*'):
        damage(path, 'empty')
    assert run(tiny, folder).error is None
    assert 'begins anew, no snapshot is intact' in capfd.readouterr().err
    assert_same(folder, whole('adaptive'))


def test_a_snapshot_that_does_not_fit_is_one_line(tiny, tmp_path):
    killed(tiny, tmp_path, 'adaptive', 'update', 8)
    path = tmp_path / 'snapshot_iter_6'
    with numpy.load(path) as file:
        content = dict(file)
    del content['updater/model:main/predictor/fc1/W']
    with open(path, 'wb') as file:
        numpy.savez(file, **content)
    make_old(tmp_path)
    result = run(tiny, tmp_path)
    assert f'{path} does not fit' in result.error and '--fresh' in result.error


class Printed:
    """Prints when it is unpickled."""

    def __reduce__(self):
        return print, ('unpickled',)


def test_a_snapshot_with_a_pickled_object_is_one_line_that_names_the_key(tiny, tmp_path, capfd):
    killed(tiny, tmp_path, 'adaptive', 'update', 8)
    path = tmp_path / 'snapshot_iter_6'
    with numpy.load(path) as file:
        content = dict(file)
    content['updater/iteration'] = numpy.array(Printed())
    with open(path, 'wb') as file:
        numpy.savez(file, **content)
    make_old(tmp_path)
    result = run(tiny, tmp_path)
    assert result.error.startswith(f'{path}: updater/iteration is not read')
    assert '--fresh' in result.error and '\n' not in result.error
    assert capfd.readouterr().out == ''


class FullDisk(training.Extension):
    """Lets no file grow over 20 kB from the given iteration on; the snapshots here have 50."""

    name = 'FullDisk'
    trigger = (1, 'iteration')

    def __init__(self, iteration):
        self._iteration = iteration
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def __call__(self, trainer):
        if trainer.updater.iteration == self._iteration:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, self._before[1]))

    def finalize(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


def test_a_full_disk_is_one_line_and_the_previous_snapshot_is_what_is_gone_on_from(
    tiny, tmp_path, whole, capfd
):
    folder = tmp_path / 'full'
    more = ['model.units=32']
    result = run(tiny, folder, more=more, extras=[FullDisk(3)])
    assert result.error == (
        f'{folder}/snapshot_iter_4 could not be written: File too large;'
        f' {folder}/snapshot_iter_2 is intact'
    )
    assert [path.name for path in folder.glob('snapshot*')] == ['snapshot_iter_2']
    assert not list(folder.glob('*unfinished*'))
    assert 'could not be written' in (folder / 'error.txt').read_text()
    assert capfd.readouterr().err == ''
    assert run(tiny, folder, more=more).error is None
    assert not (folder / 'error.txt').exists()
    run(tiny, tmp_path / 'whole', more=more)
    assert_same(folder, tmp_path / 'whole')


def test_a_disk_so_full_that_the_error_cannot_be_written_either_is_told_all_the_same(
    tiny, tmp_path, monkeypatch
):
    def full(*arguments):
        raise OSError(28, 'No space left on device', str(arguments[0]))

    monkeypatch.setattr(log, 'write_text', full)
    monkeypatch.setattr(train, 'write_text', full)
    result = run(tiny, tmp_path / 'full')
    assert result.error == f'{tmp_path}/full/log: No space left on device'


def test_a_folder_in_which_another_process_works_is_left_alone(tiny, tmp_path):
    folder = tmp_path / 'taken'
    reader, writer = os.pipe()

    def work():
        with resume.locked(str(folder)):
            os.write(writer, b'x')
            signal.pause()

    pid = forked(work)
    os.read(reader, 1)
    try:
        assert run(tiny, folder).error == f'{folder}: process {pid} works in it'
        assert [path.name for path in folder.iterdir()] == ['.lock']
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert run(tiny, folder).error is None  # freed by the system
