"""The error of gradients against a float32 pass, by itself and during a training."""

import copy
import math
import os

import chainerlp
from chainerlp import policies
from chainerlp.extensions import GradientError, ScaleReport, files, pictures
from tests.extensions.reported_trainings import MLP, ResNet, make_trainer

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest

DTYPES = {'mixed16': chainer.mixed16, 'float16': numpy.dtype('e'), 'float32': numpy.dtype('f')}
every_dtype = pytest.mark.parametrize('dtype', DTYPES)


class Net(chainer.Chain):
    """Has states of its own, and draws at random."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.hidden = L.Linear(12, 20)
            self.norm = L.BatchNormalization(20)
            self.memory = L.LSTM(20, 20)
            self.last = L.Linear(20, 5)
        self.calls = 0

    def forward(self, x, t, shrink=1.0):
        self.calls += 1
        h = F.dropout(F.relu(self.norm(self.hidden(x))), 0.3)
        y = self.last(F.dropout(self.memory(h), 0.3))
        return F.softmax_cross_entropy(F.cast(y, 'f'), t) * shrink


def made(dtype):
    numpy.random.seed(0)
    with chainer.using_config('dtype', DTYPES[dtype]):
        model = Net()
    random = numpy.random.RandomState(1)
    kind = numpy.float32 if dtype == 'float32' else numpy.float16
    x = random.standard_normal((16, 12)).astype(kind)
    model(x, numpy.zeros(16, 'i'))  # the memory has a state now
    model.memory.h.unchain()
    model.memory.c.unchain()
    return model, x, random.randint(0, 5, 16).astype('i')


def state_of(model):
    arrays = {path: param.array for path, param in model.namedparams()}
    arrays.update({f'{path} grad': param.grad for path, param in model.namedparams()})
    arrays['mean'], arrays['h'] = model.norm.avg_mean, model.memory.h.array
    return {
        key: None if array is None else (id(array), array.copy()) for key, array in arrays.items()
    }


@every_dtype
@pytest.mark.parametrize('is_converted', [False, True])
def test_everything_is_as_before(dtype, is_converted):
    model, x, t = made(dtype)
    if is_converted:
        chainerlp.convert(model, policies.Amax(interval=7))
        chainerlp.backward(model(x, t))
        held = copy.deepcopy(model.last.layer_scale._held)
    before, classes = state_of(model), [type(link) for link in model.links()]
    random_state = numpy.random.get_state()[1].copy()
    calls = model.calls
    chainerlp.gradient_error(model, model, x, t, policy=policies.PerSample(), show=False)
    assert [type(link) for link in model.links()] == classes
    assert model.calls == calls
    numpy.testing.assert_array_equal(numpy.random.get_state()[1], random_state)
    after = state_of(model)
    assert after.keys() == before.keys()
    for key, value in before.items():
        assert (after[key] is None) == (value is None)
        if value is not None:
            assert after[key][0] == value[0], key
            numpy.testing.assert_array_equal(after[key][1], value[1])
    if is_converted:
        assert model.last.layer_scale.policy == policies.Amax(interval=7)
        assert model.last.layer_scale._held == held


@pytest.mark.parametrize('policy', [None, policies.Amax(), policies.Fixed(1)])
def test_of_a_float32_model_it_is_zero(policy):
    model, x, t = made('float32')
    errors = chainerlp.gradient_error(model, model, x, t, policy=policy, show=False)
    assert set(errors.parameters) == {path for path, _ in model.namedparams()}
    assert math.isnan(errors.parameters.pop('/hidden/b'))  # before batch normalization
    assert set(errors.parameters.values()) == {0}


@pytest.mark.parametrize('dtype', ['mixed16', 'float16'])
def test_what_is_lost_without_a_scale_is_kept_with_one(dtype):
    def errors(**options):
        model, x, t = made(dtype)
        return chainerlp.gradient_error(
            model, model, x, t, numpy.float32(2.0**-20), show=False, **options
        )

    plain, scaled = errors(), errors(policy=policies.PerSample(), initial_scale=2.0**15)
    assert plain.median > 0.2
    assert scaled.median < scaled.worst < 0.05
    shares = [share for share, _ in plain.nonzero.values()]
    exact = [share for _, share in plain.nonzero.values()]
    assert min(shares) < 0.5 * min(exact)
    for share, reference in scaled.nonzero.values():
        assert share == pytest.approx(reference, abs=0.01)


def test_the_error_is_that_of_the_definition():
    model = L.Linear(3, 2, nobias=True)
    chainerlp.convert(model, policies.Fixed(1), compute_dtype='float8_e4m3')
    x = numpy.float32([[1, 2, 3], [1 / 3, 5, 7]])
    gy = numpy.float32([[1, 1 / 3], [1 / 5, 1]])

    def loss(x):
        y = model(chainer.Variable(x))
        return F.sum(y * gy)

    errors = chainerlp.gradient_error(model, loss, x, show=False)
    import ml_dtypes

    def rounded(array):
        return array.astype(ml_dtypes.float8_e4m3fn).astype('d')

    exact = gy.T.astype('d') @ x
    error = numpy.linalg.norm(rounded(gy).T @ rounded(x) - exact) / numpy.linalg.norm(exact)
    assert errors.parameters['/W'] == pytest.approx(error, rel=1e-5)
    assert errors.nonzero == {('/', 0): (1.0, 1.0)}


def test_of_a_compute_dtype_the_shares_are_those_of_output_gradients():
    model, x, t = made('float32')
    errors = chainerlp.gradient_error(
        model, model, x, t, policy=policies.Amax(), compute_dtype='float16', show=False
    )
    assert 2.0**-14 < errors.median < 2.0**-6
    for use, (share, reference) in errors.nonzero.items():
        assert share == pytest.approx(reference, abs=0.02) or math.isnan(reference), use
    assert ('/hidden', 0) in errors.nonzero


def test_it_prints_a_table(capsys):
    model, x, t = made('mixed16')
    errors = chainerlp.gradient_error(model, model, x, t)
    printed = capsys.readouterr().out
    assert printed == f'{errors}\n'
    assert '/hidden/W' in printed and '/memory/upward' in printed and 'median error' in printed


def test_what_is_wrong_is_said():
    model, x, t = made('mixed16')
    with pytest.raises(TypeError, match='model must be a chainer.Link, not int'):
        chainerlp.gradient_error(3, model, x, t)
    with pytest.raises(TypeError, match='lossfun must be callable, not int'):
        chainerlp.gradient_error(model, 3, x, t)
    with pytest.raises(TypeError, match='lossfun must return a chainer.Variable, not float'):
        chainerlp.gradient_error(model, lambda x, t: 1.0, x, t)


def test_a_format_goes_with_a_policy():
    model, x, t = made('float32')
    with pytest.raises(ValueError, match="'float8_e4m3' is given without a policy"):
        chainerlp.gradient_error(model, model, x, t, gradient_format='float8_e4m3')
    options = {'policy': policies.Fixed(1), 'show': False}
    plain = chainerlp.gradient_error(model, model, x, t, **options)
    rounded = chainerlp.gradient_error(model, model, x, t, gradient_format='float8_e4m3', **options)
    assert plain.median == 0 < rounded.median


class OfDicts(chainer.Chain):
    """Takes what an iterator of dicts gives; with a constant of its own dtype."""

    def __init__(self, constant):
        super().__init__()
        with self.init_scope(), chainer.using_config('dtype', chainer.mixed16):
            self.fc = L.Linear(4, 3)
        self.constant = constant

    def forward(self, features, target):
        y = self.fc(features) * self.constant(features)
        return F.softmax_cross_entropy(F.cast(y, 'f'), target)


def train_on_dicts(tmp_path, constant):
    random = numpy.random.RandomState(0)
    examples = [
        {'features': random.standard_normal(4).astype('e'), 'target': numpy.int32(i % 3)}
        for i in range(8)
    ]
    optimizer = chainerlp.AdaptiveLossScaling(chainer.optimizers.SGD(0.1)).setup(OfDicts(constant))
    iterator = chainer.iterators.SerialIterator(examples, 4)
    updater = chainer.training.updaters.StandardUpdater(iterator, optimizer)
    trainer = chainer.training.Trainer(updater, (2, 'iteration'), out=str(tmp_path))
    trainer.extend(GradientError(trigger=(1, 'iteration')))
    trainer.run()
    return trainer


def test_batches_may_be_dicts(tmp_path):
    trainer = train_on_dicts(tmp_path, lambda x: numpy.full((len(x), 3), 2, x.dtype))
    assert 0 < trainer.observation['gradient_error/median'] < 0.01


def test_a_loss_that_cannot_be_formed_in_float32_is_a_warning_and_the_training_goes_on(tmp_path):
    with pytest.warns(RuntimeWarning, match='the loss cannot be formed in float32: .*dtype'):
        trainer = train_on_dicts(tmp_path, lambda x: chainer.Variable(numpy.ones((4, 3), 'e')))
    assert trainer.updater.iteration == 2


KINDS = ['mixed16', 'static', 'dynamic', 'wrapped', 'computing', 'float32']


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('net', [MLP, ResNet])
def test_a_training_goes_on_as_if_nothing_had_been(tmp_path, kind, net):
    results = []
    for name in ('without', 'with'):
        trainer = make_trainer(tmp_path / name, kind, net=net, extension=ScaleReport())
        if name == 'with':
            trainer.extend(GradientError(trigger=(1, 'iteration')))
        trainer.run()
        optimizer = trainer.updater.get_optimizer('main')
        results.append([param.array.copy() for param in optimizer.target.params()])
        results[-1].append(numpy.random.get_state()[1])
        if hasattr(optimizer, 'recovery'):
            results[-1].append(numpy.array([optimizer.skipped, optimizer.initial_scale], 'O'))
    for expected, found in zip(*results):
        numpy.testing.assert_array_equal(found, expected)


def test_it_writes_draws_and_reports(tmp_path):
    trainer = make_trainer(tmp_path, 'wrapped', extension=GradientError(trigger=(2, 'iteration')))
    trainer.run()
    rows = files.read(tmp_path / 'gradient_error.csv', files.ErrorRow)
    assert sorted({row.iteration for row in rows}) == [2, 4, 6, 8]
    paths = {path for path, _ in trainer.updater.get_optimizer('main').target.namedparams()}
    assert {row.parameter for row in rows} == paths
    last = [row.error for row in rows if row.iteration == 8]
    assert trainer.observation['gradient_error/worst'] == pytest.approx(max(last))
    assert trainer.observation['gradient_error/median'] == pytest.approx(numpy.median(last))
    shares = files.read(tmp_path / 'nonzero.csv', files.NonzeroRow)
    assert {row.layer for row in shares} == {f'/predictor/{n}' for n in ('res', 'down', 'fc')}
    assert {row.call for row in shares if row.layer == '/predictor/res'} == {0, 1}
    assert all(0 < row.nonzero <= row.nonzero_float32 <= 1 for row in shares)
    assert os.path.getsize(tmp_path / 'gradient_error.png') > 10_000


def test_the_picture_holds_every_parameter_and_the_median():
    errors = {'/a/W': [0.1, 0.4], '/b/W': [0.3, math.inf], '/c/W': [0.2, math.nan]}
    rows = [
        files.ErrorRow(iteration, path, of_path[iteration - 1])
        for iteration in (1, 2)
        for path, of_path in errors.items()
    ]
    (axes,) = pictures.gradient_error(rows).axes
    *lines, median = axes.get_lines()
    assert [list(line.get_ydata()) for line in lines] == [[0.1, 0.4], [0.3], [0.2]]
    assert list(median.get_ydata()) == [pytest.approx(0.2), 0.4]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['/a/W', '/c/W', 'median']
    pictures.gradient_error([files.ErrorRow(1, '/a/W', 0.0)])
    with pytest.raises(ValueError, match='no error is a finite number'):
        pictures.gradient_error([files.ErrorRow(1, '/a/W', math.inf)])


def test_a_resumed_training_has_no_row_twice(tmp_path):
    for _ in range(2):
        extension = GradientError(trigger=(2, 'iteration'))
        make_trainer(tmp_path, 'wrapped', extension=extension, epochs=1).run()
    rows = files.read(tmp_path / 'nonzero.csv', files.NonzeroRow)
    assert len(rows) == len({row[:3] for row in rows})


def test_a_full_disk_is_a_warning(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(files, 'append', full)
    trainer = make_trainer(tmp_path, 'wrapped', extension=GradientError(trigger=(4, 'iteration')))
    with pytest.warns(RuntimeWarning, match='iteration 4 is missing in .*No space left'):
        trainer.run()
