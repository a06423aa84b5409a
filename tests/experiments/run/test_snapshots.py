"""A snapshot's file holds no pickle, runs none, and knows how many arrays it has."""

import io
import pickle
import random
import zipfile

import chainerlp
from experiments.config.errors import RunError
from experiments.data.batches import Batches
from experiments.run import log, schedule, snapshots

import chainer
import numpy
import pytest
from chainer import iterators, links, optimizers, serializers, training
from chainer.serializers import npz
from chainer.training import extensions, triggers
from numpy.lib import format as npy

# What NumPy 1.26 made of Chainer's None; NumPy 2's is made here.
NONE_OF_NUMPY_1 = (
    b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (), }" + b' ' * 63
    + b'\n\x80\x03cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02C'
    b'\x01bq\x03\x87q\x04Rq\x05(K\x01)cnumpy\ndtype\nq\x06X\x02\x00\x00\x00O8q\x07\x89\x88\x87q\x08'
    b'Rq\t(K\x03X\x01\x00\x00\x00|q\nNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tq\x0bb\x89]q\x0cNatq'
    b'\rb.'
)  # fmt: skip


def saved(state):
    """Saves the state of something, and reads it, NumPy's way too; returns what was read."""
    serializer = npz.DictionarySerializer()
    state.serialize(serializer)
    content = snapshots.to_bytes(serializer.target)
    with numpy.load(io.BytesIO(content), allow_pickle=False) as file:
        assert all(not file[key].dtype.hasobject for key in file.files)
    return snapshots.read(io.BytesIO(content))


def assert_is_saved(state, fresh):
    """Asserts that a fresh object loads the state of one of its kind, and then has the same."""
    content = saved(state)
    fresh.serialize(serializers.NpzDeserializer(content))
    again = saved(fresh)
    assert set(again) == set(content)
    for key, array in content.items():
        numpy.testing.assert_array_equal(again[key], array, err_msg=key)


def optimizer_of(name):
    optimizer = getattr(optimizers, name)()
    return optimizer.setup(chainer.Sequential(links.Linear(None, 3), links.Linear(3, 2)))


def update(optimizer, dtype=numpy.float32):
    x = numpy.random.default_rng(0).standard_normal((4, 5)).astype(dtype)
    optimizer.update(lambda: chainer.functions.sum(optimizer.target(x) ** 2))


OPTIMIZERS = sorted(
    name
    for name, kind in vars(optimizers).items()
    if isinstance(kind, type) and issubclass(kind, chainer.GradientMethod)
)


@pytest.mark.parametrize('updates', [0, 2])
@pytest.mark.parametrize('name', OPTIMIZERS)
def test_the_state_of_every_optimizer_is_saved(name, updates):
    assert len(OPTIMIZERS) == 15
    optimizer, fresh = optimizer_of(name), optimizer_of(name)
    for _ in range(updates):
        update(optimizer)
    assert_is_saved(optimizer.target, fresh.target)  # at first without the size of its input
    if updates:
        assert_is_saved(optimizer, fresh)
    else:  # Chainer has no state yet, and loads none from there
        saved(optimizer)


@pytest.mark.parametrize('method', ['adaptive', 'dynamic', 'fp32_update'])
def test_the_state_of_scaling_is_saved(method):
    def made():
        optimizer = optimizers.MomentumSGD()
        with chainer.using_config('dtype', chainer.mixed16):
            model = chainer.Sequential(links.Linear(None, 3), links.Linear(3, 2))
        if method == 'adaptive':
            return chainerlp.AdaptiveLossScaling(optimizer).setup(model)
        optimizer.use_fp32_update()
        if method == 'dynamic':
            optimizer.loss_scaling()
        return optimizer.setup(model)

    optimizer, fresh = made(), made()
    update(optimizer, numpy.float16)
    assert_is_saved(optimizer.target, fresh.target)
    assert_is_saved(optimizer, fresh)
    assert_is_saved(snapshots.OptimizerState(optimizer), snapshots.OptimizerState(fresh))


ITERATORS = {
    'serial': lambda: iterators.SerialIterator(range(10), 3),
    'in order': lambda: iterators.SerialIterator(range(10), 3, shuffle=False),
    'once': lambda: iterators.SerialIterator(range(10), 3, repeat=False),
    'threads': lambda: iterators.MultithreadIterator(range(10), 3, n_threads=1),
    'threads in order': lambda: iterators.MultithreadIterator(range(10), 3, shuffle=False),
    'processes': lambda: iterators.MultiprocessIterator(range(10), 3, n_processes=1),
    'ours': lambda: Batches(range(10), 3),
}


@pytest.mark.parametrize('steps', [0, 1, 5])
@pytest.mark.parametrize('kind', ITERATORS)
def test_the_state_of_every_iterator_is_saved(kind, steps):
    iterator, fresh = ITERATORS[kind](), ITERATORS[kind]()
    try:
        # Processes would load ahead; those that never start are as good here.
        for _ in range(0 if kind == 'processes' else steps):
            next(iterator, None)
        assert_is_saved(iterator, fresh)
    finally:
        iterator.finalize()
        fresh.finalize()


class Never:
    """An interval of a config, and a request to stop that never comes."""

    epochs, iterations, signal = None, 2, None


EVERY_2 = (2, 'iteration')
EXTENSIONS = {
    'LogReport': lambda: extensions.LogReport(trigger=EVERY_2),
    'MicroAverage': lambda: extensions.MicroAverage('correct', 'all', 'mean', EVERY_2),
    'ExponentialShift': lambda: extensions.ExponentialShift('lr', 0.5),
    'InverseShift': lambda: extensions.InverseShift('lr', 0.5, 2),
    'LinearShift': lambda: extensions.LinearShift('lr', (1, 2), (1, 3)),
    'MultistepShift': lambda: extensions.MultistepShift('lr', 0.5, [2, 4], 0.1),
    'PolynomialShift': lambda: extensions.PolynomialShift('lr', 1, 10),
    'StepShift': lambda: extensions.StepShift('lr', 0.5, 2),
    'WarmupShift': lambda: extensions.WarmupShift('lr', 0.1, 3, 1),
    'DumpGraph': lambda: extensions.DumpGraph('main/loss'),
    'FailOnNonNumber': lambda: extensions.FailOnNonNumber(),
    'PlotReport': lambda: extensions.PlotReport(['main/loss'], trigger=EVERY_2),
    'PrintReport': lambda: extensions.PrintReport(
        ['main/loss'], extensions.LogReport(trigger=EVERY_2)
    ),
    'snapshot': lambda: extensions.snapshot(),
    'ScaleReport': lambda: chainerlp.extensions.ScaleReport(trigger=EVERY_2),
    'PlotScales': lambda: chainerlp.extensions.PlotScales(),
    'Log': lambda: log.Log(EVERY_2),
    'Snapshots': lambda: snapshots.Snapshots(schedule.IntervalAndEnd(Never), Never),
}
TRIGGERS = {
    'IntervalTrigger': lambda: triggers.IntervalTrigger(2, 'epoch'),
    'ManualScheduleTrigger': lambda: triggers.ManualScheduleTrigger([1, 3], 'iteration'),
    'MaxValueTrigger': lambda: triggers.MaxValueTrigger('main/loss', EVERY_2),
    'MinValueTrigger': lambda: triggers.MinValueTrigger('main/loss', (10, 'iteration')),
    'OnceTrigger': lambda: triggers.OnceTrigger(),
    'TimeTrigger': lambda: triggers.TimeTrigger(0.001),
    'IntervalAndEnd': lambda: schedule.IntervalAndEnd(Never),
}


def train(folder, *arguments, **options):
    """Trains for six iterations, three epochs, with an extension."""
    optimizer = optimizers.MomentumSGD().setup(links.Classifier(links.Linear(3, 2)))
    examples = [(numpy.full(3, i, numpy.float32), numpy.int32(i % 2)) for i in range(4)]
    updater = training.StandardUpdater(iterators.SerialIterator(examples, 2), optimizer)
    trainer = training.Trainer(updater, (6, 'iteration'), str(folder))
    trainer.extend(*arguments, **options)
    trainer.run()
    saved(trainer)


@pytest.mark.filterwarnings('ignore:(ScaleReport|PlotScales)')
@pytest.mark.parametrize('name', EXTENSIONS)
def test_the_state_of_every_extension_is_saved(tmp_path, name):
    extension = EXTENSIONS[name]()
    assert_is_saved(extension, EXTENSIONS[name]())
    train(tmp_path, extension)
    assert_is_saved(extension, EXTENSIONS[name]())


@pytest.mark.parametrize('name', TRIGGERS)
def test_the_state_of_every_trigger_is_saved(tmp_path, name):
    trigger = TRIGGERS[name]()
    assert_is_saved(trigger, TRIGGERS[name]())
    train(tmp_path, lambda trainer: None, name='any', trigger=trigger)
    assert_is_saved(trigger, TRIGGERS[name]())


def zipped(path, members):
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def member(array):
    file = io.BytesIO()
    numpy.save(file, array, allow_pickle=True)
    return file.getvalue()


def test_none_in_an_older_snapshot_is_read_without_unpickling_it(tmp_path, monkeypatch):
    path = tmp_path / 'snapshot'
    ours = member(numpy.array(None))
    for content in (NONE_OF_NUMPY_1, ours):  # what they hold is what is thought
        value = numpy.load(io.BytesIO(content), allow_pickle=True)
        assert value.shape == () and value[()] is None
    zipped(path, {'a/b.npy': ours, 'c.npy': NONE_OF_NUMPY_1, 'd.npy': member(numpy.arange(3))})
    monkeypatch.setattr(pickle, 'load', None)
    read = snapshots.read(path)
    assert list(read) == ['a/b', 'c', 'd']
    assert [read[key].shape for key in 'd'] == [(3,)]
    assert all(read[key].shape == () and read[key][()] is None for key in ('a/b', 'c'))


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return open, (str(self._path), 'w')


def objects(path):
    several = numpy.empty(2, object)
    several[:] = Runs(path), None
    fields = numpy.empty(1, [('number', 'i4'), ('object', object)])
    fields['object'] = Runs(path)
    one = numpy.empty((), object)
    one[()] = Runs(path)
    return {
        'one': member(one),
        'several': member(several),
        'fields': member(fields),
        'nones': member(numpy.array([None, None])),
        'after None': NONE_OF_NUMPY_1 + pickle.dumps(Runs(path)),
        'none of ours': NONE_OF_NUMPY_1.replace(b'latin1', b'')[:-2] + b'\x94.',
        'no array': pickle.dumps(Runs(path)),
        'another format': NONE_OF_NUMPY_1.replace(b'NUMPY\x01', b'NUMPY\x02'),
    }


@pytest.mark.parametrize('kind', objects(''))
def test_anything_else_that_is_pickled_is_refused_and_not_run(tmp_path, kind):
    path, made = tmp_path / 'snapshot', tmp_path / 'made'
    zipped(path, {'a.npy': member(numpy.arange(3)), 'some/key.npy': objects(made)[kind]})
    assert snapshots.is_intact(path)
    with pytest.raises(RunError) as error:
        snapshots.read(path)
    said = str(error.value)
    assert said.startswith(f'{path}: some/key is not read') and '\n' not in said
    assert len(said) < 300 + len(str(path)) and not made.exists()


def test_a_file_that_expands_is_not_read(tmp_path):
    path = tmp_path / 'snapshot'
    for level in (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, 'w', level) as archive:
            archive.writestr('a.npy', member(numpy.zeros(10**7)))
        assert not snapshots.is_intact(path)
        with pytest.raises(RunError, match='snapshot: its arrays are larger than the file'):
            snapshots.read(path)
    path.write_bytes(snapshots.to_bytes({'a': numpy.zeros(10**7)}))
    assert snapshots.is_intact(path)


@pytest.mark.parametrize('version', [(1, 0), (2, 0)])
def test_an_array_that_claims_more_than_there_is_is_not_read(tmp_path, version):
    header = io.BytesIO()
    write = {(1, 0): npy.write_array_header_1_0, (2, 0): npy.write_array_header_2_0}[version]
    write(header, {'descr': '<f4', 'fortran_order': False, 'shape': (2**19, 2**19)})
    path = tmp_path / 'snapshot'
    zipped(path, {'a.npy': member(numpy.arange(3)), 'b.npy': header.getvalue() + bytes(64)})
    assert not snapshots.is_intact(path)
    with pytest.raises(RunError, match='snapshot: its arrays are larger than the file'):
        snapshots.read(path)


def test_a_snapshot_of_another_run_is_not_intact(tmp_path):
    path = tmp_path / 'snapshot'
    path.write_bytes(snapshots.to_bytes({**ARRAYS, 'run': numpy.array('fp32-seed=0')}))
    assert snapshots.is_intact(path) and snapshots.is_intact(path, 'fp32-seed=0')
    assert not snapshots.is_intact(path, 'adaptive-seed=0')
    path.write_bytes(snapshots.to_bytes(ARRAYS))  # older ones do not say it
    assert snapshots.is_intact(path, 'adaptive-seed=0')


def test_objects_are_not_written(tmp_path):
    with pytest.raises(RunError, match='some/key: given Python objects, allowed: numbers, text an'):
        snapshots.to_bytes({'a': numpy.arange(3), 'some/key': numpy.array([None, 1])})


def flipped(content, bits):
    """Yields bits, and the content with one flipped."""
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(damaged)


def assert_is_read_or_damaged(path, content, arrays, bits):
    """Asserts that with any of the bits flipped a file is the same, or not intact."""
    found = 0
    for bit, damaged in flipped(content, bits):
        path.write_bytes(damaged)
        if not snapshots.is_intact(path):
            found += 1
            continue
        read = snapshots.read(path)  # the bit is of a time, say, or of a permission
        assert list(read) == list(arrays), bit
        for key, array in arrays.items():
            numpy.testing.assert_array_equal(read[key], array, err_msg=bit)
    return found


ARRAYS = {'a/key/0': numpy.arange(3), 'a/key/1': numpy.ones(2), 'none': numpy.array(None)}


def test_no_flipped_bit_of_the_directory_loses_a_key(tmp_path):
    content = snapshots.to_bytes(ARRAYS)
    bits = range(8 * content.index(b'PK\x01\x02'), 8 * len(content))
    found = assert_is_read_or_damaged(tmp_path / 'snapshot', content, ARRAYS, bits)
    assert found > len(bits) / 3


def test_no_flipped_bit_of_the_arrays_passes(tmp_path):
    content = snapshots.to_bytes(ARRAYS)
    whole = range(8 * content.index(b'PK\x01\x02'))
    bits = sorted(random.Random(0).sample(whole, 500))
    found = assert_is_read_or_damaged(tmp_path / 'snapshot', content, ARRAYS, bits)
    assert found > 300


@pytest.mark.parametrize('content', [b'', b'PK', b'no snapshot' * 10, None])
def test_what_is_no_snapshot_is_not_intact(tmp_path, content):
    if content is not None:
        (tmp_path / 'snapshot').write_bytes(content)
    assert not snapshots.is_intact(tmp_path / 'snapshot')


@pytest.mark.parametrize('old', ['stage1/2', 'stage3/17', 'blocks/0'])
def test_a_snapshot_of_blocks_in_another_order_is_refused_with_the_reason(tmp_path, old):
    key = f'updater/model:main/predictor/{old}/conv1/conv/W'
    path = tmp_path / 'snapshot'
    path.write_bytes(snapshots.to_bytes({key: numpy.zeros(3)}))
    with pytest.raises(RunError) as error:
        snapshots.load(path, trainer=None)
    assert str(error.value) == (
        f'{path} does not fit: {key} is named as blocks were when they were numbered in another'
        ' order than their own, now block1, block2 and so on: --fresh starts over'
    )
