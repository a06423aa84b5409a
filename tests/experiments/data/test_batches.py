import concurrent.futures
import functools
import multiprocessing
import operator
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import warnings

from experiments.config.errors import DamagedImageError
from experiments.data import batches, cifar, imagenet
from experiments.data.batches import Batches
from experiments.data.images import ReplaceDamaged, labelled_images
from experiments.data.randomness import Augmented, epoch_order, using_epoch
from experiments.data.transforms import Normalization

import numpy
import pytest
from chainer import serializers
from chainer.datasets import SubDataset, TransformDataset, TupleDataset
from chainer.iterators import SerialIterator
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = pathlib.Path(__file__).parents[3]
WAYS = [(0, 'processes'), (1, 'threads'), (2, 'threads'), (1, 'processes'), (2, 'processes')]


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch):
    """So many workers as the test asks for, whatever the machine has."""
    monkeypatch.setattr(batches, 'available_cpus', lambda: 64)


def crops(count):
    """Random crops of random images: what a process can be sent."""
    images = numpy.random.default_rng(0).integers(0, 256, (count, 3, 6, 6), dtype=numpy.uint8)
    labels = numpy.arange(count, dtype=numpy.int32)
    normalization = Normalization((0,) * 3, (1,) * 3, numpy.dtype('float32'))
    transform = functools.partial(cifar.transform, normalization, True)
    return Augmented(TupleDataset(images, labels), transform)


def flat(batches, count):
    """Returns so many batches as something that can be compared bit for bit."""
    return [[(image.tobytes(), int(label)) for image, label in next(batches)] for _ in range(count)]


def labels(batch):
    return [int(label) for _, label in batch]


def state(batches):
    return (
        batches.epoch,
        batches.is_new_epoch,
        batches.epoch_detail,
        batches.previous_epoch_detail,
    )


def resumed(batches, make):
    """Returns another iterator with the state of this one, by way of a snapshot."""
    saver = serializers.DictionarySerializer()
    batches.serialize(saver)
    other = make()
    other.serialize(serializers.NpzDeserializer(saver.target))
    return other


def nobody_works():
    return not multiprocessing.active_children() and not any(
        thread.name.startswith('loader') for thread in threading.enumerate()
    )


@pytest.mark.parametrize('workers, pool', WAYS[1:])
def test_the_batches_are_the_same_whoever_loads_them(workers, pool):
    # Batches that cross epochs, and that no number of workers divides.
    with Batches(crops(11), 5, seed=3) as alone:
        expected = flat(alone, 9)
    with Batches(crops(11), 5, seed=3, workers=workers, pool=pool) as batches:
        assert flat(batches, 9) == expected
        assert state(batches) == state(alone)


@pytest.mark.parametrize('workers, pool', WAYS)
def test_a_resumed_run_sees_the_same_batches(workers, pool):
    def make():
        return Batches(crops(7), 3, seed=1, workers=workers, pool=pool)

    with make() as batches:
        for _ in range(4):
            next(batches)
        with resumed(batches, make) as other:
            assert state(other) == state(batches)
            assert flat(other, 5) == flat(batches, 5)
            assert state(other) == state(batches)


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 20), st.booleans(), st.booleans())
@settings(deadline=None)
def test_it_can_be_resumed_at_any_iteration(size, batch_size, done, repeat, in_threads):
    def make():
        workers = 2 if in_threads else 0
        return Batches(crops(size), batch_size, 5, repeat, workers=workers, pool='threads')

    def rest(batches):
        return [labels(batch) for _, batch in zip(range(4), batches)]

    with make() as batches:
        for _ in zip(range(done), batches):
            pass
        with resumed(batches, make) as other:
            assert state(other) == state(batches)
            assert rest(other) == rest(batches)
            assert state(other) == state(batches)


@given(st.integers(1, 9), st.integers(1, 20), st.booleans())
@settings(deadline=None)
def test_epochs_are_counted_as_chainer_s_own_iterator_does(size, batch_size, repeat):
    examples = list(range(size))
    ours = Batches(examples, batch_size, repeat=repeat, shuffle=False)
    chainers = SerialIterator(examples, batch_size, repeat=repeat, shuffle=False)
    assert (ours.repeat, ours.batch_size) == (repeat, batch_size)
    for _ in range(8):
        assert ours.epoch == chainers.epoch and ours.is_new_epoch == chainers.is_new_epoch
        # One division here; a division and a sum there.
        assert ours.epoch_detail == pytest.approx(chainers.epoch_detail, rel=2**-52)
        assert ours.previous_epoch_detail == pytest.approx(chainers.previous_epoch_detail)
        batch = next(ours, None)
        assert batch == next(chainers, None)
        if batch is None:  # Chainer's counts on
            break


def test_each_epoch_has_every_example_once_in_an_order_of_its_own():
    batches = Batches(crops(10), 4, seed=2)
    seen = [label for _ in range(15) for label in labels(next(batches))]
    epochs = [seen[i : i + 10] for i in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert epochs == [epoch_order(2, epoch, 10).tolist() for epoch in range(6)]


def test_two_batches_are_loaded_ahead_and_no_more():
    loaded = []
    with Batches(
        TransformDataset(range(100), loaded.append), 5, shuffle=False, workers=2, pool='threads'
    ) as batches:
        for done in (1, 2):
            next(batches)
            deadline = time.monotonic() + 20
            while len(loaded) < 5 * (done + 2) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.05)
            assert sorted(loaded) == list(range(5 * (done + 2)))


def test_an_example_that_is_loaded_ahead_is_augmented_for_its_own_epoch():
    # One batch is an epoch: while the first is trained on, those of the next two are loaded.
    dataset = crops(4)
    with Batches(dataset, 4, seed=9, workers=2, pool='threads') as batches:
        for epoch in range(5):
            for image, label in next(batches):
                with using_epoch(9, epoch):
                    assert (image == dataset[int(label)][0]).all()


@pytest.mark.parametrize('workers, pool', WAYS)
def test_a_single_epoch_ends_and_can_be_begun_again(workers, pool):
    with Batches(crops(7), 3, repeat=False, shuffle=False, workers=workers, pool=pool) as batches:
        for _ in range(2):
            assert [labels(batch) for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
            assert state(batches) == (1, True, 1.0, 6 / 7)
            with pytest.raises(StopIteration):
                next(batches)
            batches.reset()
            assert state(batches) == (0, False, 0.0, None)


def test_a_worker_of_chainermn_has_its_share():
    share = SubDataset(crops(10), 2, 7, order=numpy.arange(10)[::-1])
    with Batches(share, 5, workers=2) as batches:
        assert sorted(labels(next(batches))) == [3, 4, 5, 6, 7]


def test_an_empty_share_is_an_empty_epoch():
    batches = Batches([], 3, repeat=False)
    assert list(batches) == [] and state(batches) == (0, False, 0.0, None)
    with pytest.raises(ValueError, match='given an empty data set'):
        Batches([], 3)


def test_there_are_no_more_workers_than_cpus(monkeypatch):
    monkeypatch.undo()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    assert Batches([1], 1, workers=1000).workers == cpus
    assert Batches([1], 1, workers=0).workers == 0


@pytest.mark.parametrize('workers, pool', WAYS)
def test_an_error_names_the_example_and_leaves_nothing_behind(workers, pool):
    # Of a pair, the third.
    dataset = TransformDataset([(0, 0, 0)] * 5 + [(0, 0)] + [(0, 0, 0)] * 5, operator.itemgetter(2))
    batches = Batches(dataset, 4, shuffle=False, workers=workers, pool=pool)
    assert next(batches) == [0] * 4
    message = 'example 5 of the data set, in epoch 0: IndexError: tuple index out of range'
    for _ in range(2):  # it does not go on as if nothing had been
        with pytest.raises(RuntimeError, match=message):
            next(batches)
        assert nobody_works()
    assert state(batches) == (0, False, 4 / 11, 0.0)


@pytest.mark.parametrize('workers, pool', WAYS)
def test_a_damaged_image_is_named(tmp_path, noise, cut, workers, pool):
    paths = [tmp_path / f'{i}.png' for i in range(4)]
    for i, path in enumerate(paths):
        noise(path, seed=i)
    cut(paths[2])
    normalization = Normalization((0,) * 3, (1,) * 3, numpy.dtype('float32'))
    images = labelled_images([str(path) for path in paths], range(4))
    transform = functools.partial(imagenet.transform, 4, normalization, False)
    dataset = TransformDataset(images, transform)
    with Batches(dataset, 4, workers=workers, pool=pool) as batches:
        with pytest.raises(DamagedImageError, match=f'^{paths[2]}: damaged image'):
            next(batches)


@pytest.mark.parametrize('workers, pool', WAYS)
def test_a_skipped_image_is_told_once(tmp_path, noise, cut, workers, pool):
    paths = [tmp_path / f'{i}.png' for i in range(4)]
    for i, path in enumerate(paths):
        noise(path, seed=i)
    cut(paths[2])
    normalization = Normalization((0,) * 3, (1,) * 3, numpy.dtype('float32'))
    images = ReplaceDamaged(labelled_images([str(path) for path in paths], range(4)))
    transform = functools.partial(imagenet.transform, 4, normalization, False)
    dataset = TransformDataset(images, transform)
    with Batches(dataset, 4, shuffle=False, workers=workers, pool=pool) as batches:
        with pytest.warns(UserWarning, match=str(paths[2])) as told:
            assert labels(next(batches)) == [0, 1, 3, 3]
        assert len(told) == 1 and told[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            assert labels(next(batches)) == [0, 1, 3, 3]


def test_a_process_that_is_killed_is_an_error_that_says_so():
    dataset = TransformDataset([7] * 10, os._exit)
    batches = Batches(dataset, 2, workers=2)
    with pytest.raises(RuntimeError, match='a process that loads examples was killed.*2 of them'):
        next(batches)
    assert nobody_works()


def test_an_interrupted_wait_loses_nothing(monkeypatch):
    expected = flat(Batches(crops(9), 4), 3)
    with Batches(crops(9), 4, workers=1, pool='threads') as batches:
        first = flat(batches, 1)
        with monkeypatch.context() as patched:
            # Some shells start what runs in the background with Ctrl-C ignored.
            before = signal.signal(signal.SIGINT, signal.default_int_handler)
            interrupt = functools.partial(signal.raise_signal, signal.SIGINT)
            patched.setattr(concurrent.futures.Future, 'result', lambda self: interrupt())
            try:
                with pytest.raises(KeyboardInterrupt):
                    next(batches)
            finally:
                signal.signal(signal.SIGINT, before)
        assert first + flat(batches, 2) == expected


def test_after_finalizing_it_goes_on_where_it_was():
    expected = flat(Batches(crops(9), 4), 4)
    batches = Batches(crops(9), 4, workers=2, pool='threads')
    found = flat(batches, 2)
    assert not nobody_works()
    batches.finalize()
    assert nobody_works()
    batches.finalize()
    assert found + flat(batches, 2) == expected
    batches.finalize()


@pytest.fixture
def program():
    """Starts the program that loads; it is in a group of its own, as in a terminal."""
    command = [sys.executable, str(pathlib.Path(__file__).with_name('loading_program.py'))]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == 'loaded\n', process.stderr.read()
    yield process
    process.kill()


@pytest.mark.slow
def test_the_processes_end_with_the_one_that_is_killed(program):
    program.kill()
    # Their ends of the pipes are closed only once all of them have ended.
    _, errors = program.communicate(timeout=20)
    assert 'Traceback' not in errors


@pytest.mark.slow
def test_ctrl_c_is_seen_by_the_one_that_trains_alone(program):
    os.killpg(program.pid, signal.SIGINT)
    _, errors = program.communicate(timeout=20)
    assert program.returncode == -signal.SIGINT
    assert errors.count('Traceback') == 1 and errors.rstrip().endswith('KeyboardInterrupt')
