"""A training on a GPU with Chainer's trainer: evaluation, log, snapshot, resume."""

import json

import chainerlp
from tests.gpu.agreement import CPU, UNIT

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import training
from chainer.training import extensions

pytestmark = pytest.mark.gpu

CLASSES = 4


class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv = L.Convolution2D(1, 6, 3, pad=1, nobias=True)
            self.norm = L.BatchNormalization(6)
            self.fc = L.Linear(6 * 4 * 4, CLASSES)

    def forward(self, x):
        return self.fc(F.max_pooling_2d(F.relu(self.norm(self.conv(x))), 2))


def images(n, seed):
    """Images with a bright quarter, whose place is the class."""
    random = numpy.random.RandomState(seed)
    t = random.randint(0, CLASSES, n).astype('i')
    x = random.standard_normal((n, 1, 8, 8)) * 0.5
    for image, place in zip(x, t):
        row, column = 4 * (place // 2), 4 * (place % 2)
        image[0, row : row + 4, column : column + 4] += 1
    return chainer.datasets.TupleDataset(x.astype('e'), t)


def make_trainer(device, out, iterations, scaled):
    numpy.random.seed(0)
    with chainer.using_config('dtype', chainer.mixed16):
        model = L.Classifier(Net())
    model.to_device(device)
    optimizer = chainer.optimizers.MomentumSGD(0.05)
    if scaled:
        optimizer = chainerlp.AdaptiveLossScaling(optimizer)
    optimizer.use_fp32_update()
    optimizer.setup(model)
    # A shuffled order comes from the global random state, which no snapshot holds.
    iterator = chainer.iterators.SerialIterator(images(128, 1), 32, shuffle=False)
    updater = training.updaters.StandardUpdater(iterator, optimizer, device=device)
    trainer = training.Trainer(updater, (iterations, 'iteration'), out=str(out))
    test = chainer.iterators.SerialIterator(images(96, 2), 32, repeat=False, shuffle=False)
    trainer.extend(extensions.Evaluator(test, model, device=device), trigger=(8, 'iteration'))
    trainer.extend(extensions.ParameterStatistics(model, trigger=(8, 'iteration')))
    trainer.extend(extensions.FailOnNonNumber())
    trainer.extend(extensions.LogReport(trigger=(8, 'iteration')))
    trainer.extend(extensions.snapshot(filename='at{.updater.iteration}'), trigger=(8, 'iteration'))
    return trainer, model


def log_of(folder):
    return json.loads((folder / 'log').read_text())


def parameters(model):
    return {name: CPU.send(param.array) for name, param in model.namedparams()}


@pytest.mark.parametrize('scaled', [False, True], ids=['Chainer', 'chainerlp'])
def test_it_learns_as_on_the_cpu_and_logs_it(device, tmp_path, scaled):
    logs = {}
    for name, where in (('device', device), ('cpu', CPU)):
        trainer, model = make_trainer(where, tmp_path / name, 24, scaled)
        trainer.run()
        assert model.xp is where.xp
        logs[name] = log_of(tmp_path / name)
    for actual, expected in zip(logs['device'], logs['cpu']):
        assert actual.keys() == expected.keys()
        # 24 steps, each with roundings of 2^-11, from losses that begin at about 1.5.
        assert actual['main/loss'] == pytest.approx(expected['main/loss'], abs=2.0**-5)
        assert actual['validation/main/loss'] == pytest.approx(
            expected['validation/main/loss'], abs=2.0**-4
        )
    assert logs['device'][-1]['validation/main/accuracy'] > 0.9
    statistics = [key for key in logs['device'][-1] if 'percentile' in key]
    assert len(statistics) > 10


@pytest.mark.parametrize('scaled', [False, True], ids=['Chainer', 'chainerlp'])
def test_a_resumed_training_goes_on_as_if_nothing_had_been(device, tmp_path, scaled):
    trainer, model = make_trainer(device, tmp_path / 'whole', 24, scaled)
    trainer.run()
    resumed, again = make_trainer(device, tmp_path / 'resumed', 24, scaled)
    chainer.serializers.load_npz(tmp_path / 'whole' / 'at16', resumed)
    assert resumed.updater.iteration == 16
    resumed.run()
    for name, expected in parameters(model).items():
        actual = parameters(again)[name]
        assert actual.dtype == expected.dtype
        # Chainer's snapshot has weights in fp16 only, and momenta in float32.
        bound = 8 * UNIT['float16'] * abs(expected).max()
        numpy.testing.assert_allclose(actual, expected, rtol=0, atol=bound, err_msg=name)
    last, expected = log_of(tmp_path / 'resumed')[-1], log_of(tmp_path / 'whole')[-1]
    # Logits of up to about 8, rounded.
    assert last['main/loss'] == pytest.approx(expected['main/loss'], abs=8 * UNIT['float16'])


def test_a_snapshot_of_the_gpu_is_read_on_the_cpu(device, tmp_path):
    trainer, model = make_trainer(device, tmp_path / 'device', 8, False)
    trainer.run()
    resumed, again = make_trainer(CPU, tmp_path / 'cpu', 8, False)
    chainer.serializers.load_npz(tmp_path / 'device' / 'at8', resumed)
    for name, expected in parameters(model).items():
        numpy.testing.assert_array_equal(parameters(again)[name], expected, strict=True)


@pytest.mark.filterwarnings('ignore:invalid value:RuntimeWarning')  # NumPy's
def test_what_is_not_finite_is_found(device, tmp_path):
    trainer, model = make_trainer(device, tmp_path, 8, False)
    model.predictor.fc.W.array[0, 0] = numpy.inf
    with pytest.raises(RuntimeError, match='diverge'):
        trainer.run(show_loop_exception_msg=False)


class Reporting(training.Updater):
    """An updater that reports an fp16 loss of 60 and of 1 on the device, and does nothing else."""

    def __init__(self, device):
        self.iteration = self.epoch = 0
        self.device = device

    def connect_trainer(self, trainer):
        pass

    def get_all_optimizers(self):
        return {}

    def finalize(self):
        pass

    def update(self):
        self.iteration += 1
        value = self.device.xp.full((), 60, 'e')
        chainer.report({'loss': chainer.Variable(value), 'one': value / 60})


def test_the_log_of_4096_iterations_has_the_right_means(device, tmp_path):
    trainer = training.Trainer(Reporting(device), (4096, 'iteration'), out=str(tmp_path))
    trainer.extend(extensions.LogReport(trigger=(4096, 'iteration')))
    trainer.run()
    # In fp16 the sums would stick at 2048 and 65504.
    assert [(entry['loss'], entry['one']) for entry in log_of(tmp_path)] == [(60.0, 1.0)]


def test_a_summary_has_the_right_deviation(device):
    summary = chainer.reporter.Summary()
    for i in range(2000):
        summary.add(device.send(numpy.array(50 + 10 * (i % 2), 'e')))
    mean, deviation = summary.make_statistics()
    assert (float(mean), float(deviation)) == (55.0, 5.0)
