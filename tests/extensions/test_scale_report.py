"""ScaleReport measures exactly, at its trigger, on any trainer, and changes nothing."""

import csv
import os

import chainerlp
from chainerlp import policies
from chainerlp.extensions import ScaleReport

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers, training
from chainer.training import extensions


class ResNet(chainer.Chain):
    """A small residual CNN, in which one convolution is used twice."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(1, 6, 3, pad=1)
            self.res = L.Convolution2D(6, 6, 3, pad=1, groups=2)
            self.down = L.Convolution2D(6, 8, 3, stride=2, pad=1)
            self.fc = L.Linear(None, 10)

    def forward(self, x):
        h = F.relu(self.conv1(x))
        h = h + F.relu(self.res(F.relu(self.res(h))))
        return self.fc(F.relu(self.down(h)))


def make_trainer(out, kind='mixed16', epochs=2, extension=None, batch_size=8, shrink=2.0**-12):
    dtype = numpy.float32 if kind == 'float32' else chainer.mixed16
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        model = L.Classifier(
            ResNet(), lossfun=lambda y, t: F.softmax_cross_entropy(F.cast(y, 'f'), t) * shrink
        )
        x = numpy.random.standard_normal((32, 1, 8, 8)).astype(chainer.get_dtype())
    t = numpy.random.randint(0, 10, 32).astype('i')
    optimizer = optimizers.MomentumSGD(1.0)
    if kind == 'wrapped':
        optimizer = chainerlp.AdaptiveLossScaling(optimizer, policies.Measured())
    optimizer.use_fp32_update()
    optimizer.setup(model)
    if kind == 'static':
        optimizer.loss_scaling(scale=64)
    if kind == 'dynamic':
        optimizer.loss_scaling()
    iterator = chainer.iterators.SerialIterator(chainer.datasets.TupleDataset(x, t), batch_size)
    updater = training.updaters.StandardUpdater(iterator, optimizer)
    trainer = training.Trainer(updater, (epochs, 'epoch'), out=str(out))
    if extension is not None:
        trainer.extend(extension)
    return trainer


def rows_of(out, filename='scales.csv'):
    with open(os.path.join(str(out), filename), newline='') as file:
        return list(csv.DictReader(file))


class Slow(chainer.FunctionHook):
    """What the column says, from float64 products, for a loss scale of 1."""

    def __init__(self):
        self.rates = {}
        self.doubtful = {}

    def backward_postprocess(self, function, in_data, out_grad):
        if type(function).__name__ not in ('LinearFunction', 'Convolution2DFunction'):
            return
        if not function.inputs[0].requires_grad:
            return
        x, W = (numpy.asarray(a, numpy.float64) for a in in_data[:2])
        gy = out_grad[0].astype(numpy.float64)
        if W.ndim == 2:
            gx, bound = gy.dot(W), numpy.abs(gy).dot(numpy.abs(W))
        else:
            arguments = dict(
                stride=(function.sy, function.sx), pad=(function.ph, function.pw),
                outsize=x.shape[2:], groups=function.groups,
            )  # fmt: skip
            gx = F.deconvolution_2d(gy, W, **arguments).array
            bound = F.deconvolution_2d(numpy.abs(gy), numpy.abs(W), **arguments).array
        terms = W.size // W.shape[1]
        lost = (numpy.abs(gx) <= 2.0**-25) & (gx != 0)
        # A float32 sum errs by at most terms * 2^-24 of the sum of magnitudes.
        near = numpy.abs(numpy.abs(gx) - 2.0**-25) <= bound * terms * 2.0**-24
        self.rates.setdefault(W.shape, []).append((lost.mean(), near.mean()))


def test_underflow_equals_that_of_float64_products_on_a_plain_mixed16_trainer(tmp_path):
    trainer = make_trainer(tmp_path, epochs=1, extension=ScaleReport(trigger=(1, 'iteration')))
    hook = Slow()
    with hook:
        trainer.run()
    rows = rows_of(tmp_path)
    model = trainer.updater.get_optimizer('main').target
    assert len(rows) == 4 * 4  # iterations, uses of layers whose input wants a gradient
    seen = 0
    for path, shape in [('down', (8, 6, 3, 3)), ('fc', model.predictor.fc.W.shape)]:
        mine = [row for row in rows if row['layer'] == f'/predictor/{path}']
        for row, (rate, near) in zip(mine, hook.rates[shape]):
            assert abs(float(row['underflow']) - rate) <= near
            assert near < 1e-3  # the bound leaves no room for a wrong answer
            assert row['underflow'] == row['underflow_unscaled']
            seen += rate > 0.01
    assert seen >= 4


def test_a_link_used_twice_has_two_lines_in_forward_order(tmp_path):
    make_trainer(tmp_path, epochs=1, extension=ScaleReport(trigger=(1, 'iteration'))).run()
    first = [(row['layer'], row['call']) for row in rows_of(tmp_path) if row['iteration'] == '1']
    predictor = '/predictor/'
    assert first == [
        (predictor + 'res', '0'), (predictor + 'res', '1'),
        (predictor + 'down', '0'), (predictor + 'fc', '0'),
    ]  # fmt: skip


@pytest.mark.parametrize('kind', ['float32', 'mixed16', 'static', 'dynamic', 'wrapped'])
def test_training_with_it_ends_with_identical_weights(tmp_path, kind):
    weights = []
    for extension in (None, ScaleReport(trigger=(1, 'iteration'))):
        trainer = make_trainer(tmp_path, kind, extension=extension)
        trainer.run()
        target = trainer.updater.get_optimizer('main').target
        weights.append([param.array for param in target.params()])
    for without, with_it in zip(*weights):
        numpy.testing.assert_array_equal(without, with_it)


@pytest.mark.parametrize(
    'kind, total_scale', [('float32', 1.0), ('mixed16', 1.0), ('static', 64.0)]
)
def test_without_the_wrapper_the_scale_is_one_and_the_total_scale_chainers(
    tmp_path, kind, total_scale
):
    make_trainer(tmp_path, kind, extension=ScaleReport(trigger=(1, 'iteration'))).run()
    for row in rows_of(tmp_path):
        assert float(row['scale']) == 1 and float(row['total_scale']) == total_scale
        assert float(row['underflow']) <= float(row['underflow_unscaled'])


def test_dynamic_loss_scaling_is_followed(tmp_path):
    make_trainer(tmp_path, 'dynamic', extension=ScaleReport(trigger=(1, 'iteration'))).run()
    scales = {row['iteration']: float(row['total_scale']) for row in rows_of(tmp_path)}
    assert [scales[str(i)] for i in (1, 2, 3)] == [1.0, 2.0, 4.0]


def test_with_the_wrapper_scales_and_rates_are_the_layers_own(tmp_path):
    make_trainer(tmp_path, 'wrapped', extension=ScaleReport(trigger=(1, 'iteration'))).run()
    rows = rows_of(tmp_path)
    assert max(float(row['total_scale']) for row in rows) > 1
    for row in rows:
        assert float(row['underflow']) <= 1e-3  # the policy's threshold
        assert numpy.log2(float(row['scale'])) % 1 == 0
    assert max(float(row['underflow_unscaled']) for row in rows) > 0.1


@pytest.mark.parametrize(
    'trigger, iterations',
    [
        ((1, 'iteration'), range(1, 9)),
        ((3, 'iteration'), (3, 6)),
        ((1, 'epoch'), (4, 8)),
        ((0.5, 'epoch'), (2, 4, 6, 8)),
        (training.triggers.ManualScheduleTrigger([2, 7], 'iteration'), (2, 7)),
        (training.triggers.OnceTrigger(), (1,)),
        (lambda trainer: trainer.updater.iteration == 5, (5,)),
    ],
    ids=['each', 'third', 'epoch', 'half epoch', 'schedule', 'once', 'callable'],
)
def test_it_measures_the_iterations_at_its_trigger(tmp_path, trigger, iterations):
    make_trainer(tmp_path, extension=ScaleReport(trigger=trigger)).run()
    assert {row['iteration'] for row in rows_of(tmp_path)} == {str(i) for i in iterations}


def test_epochs_that_are_no_whole_number_of_batches_are_met(tmp_path):
    extension = ScaleReport(trigger=(1, 'epoch'))
    make_trainer(tmp_path, epochs=3, batch_size=5, extension=extension).run()
    # 32 examples in batches of 5: iterations 7, 13 and 20 are the first to reach 1, 2 and 3 epochs.
    assert {row['iteration'] for row in rows_of(tmp_path)} == {'7', '13', '20'}


def test_values_are_reported_for_log_report(tmp_path):
    trainer = make_trainer(
        tmp_path, 'wrapped', epochs=1, extension=ScaleReport(trigger=(1, 'iteration'))
    )
    log = extensions.LogReport(trigger=(1, 'iteration'))
    trainer.extend(log)
    trainer.run()
    rows = [row for row in rows_of(tmp_path) if row['iteration'] == '2']
    entry = log.log[1]
    for key, summary, column in [
        ('underflow', numpy.mean, 'underflow'),
        ('underflow_unscaled', numpy.mean, 'underflow_unscaled'),
        ('scale_min', min, 'scale'),
        ('scale_max', max, 'scale'),
        ('total_scale_max', max, 'total_scale'),
    ]:
        expected = summary([float(row[column]) for row in rows])
        assert entry['scaling/' + key] == pytest.approx(expected, rel=1e-12)
    assert entry['scaling/skipped'] == 0


def test_skipped_updates_are_counted_with_chainers_dynamic_loss_scaling(tmp_path):
    trainer = make_trainer(
        tmp_path, 'dynamic', epochs=8, shrink=1.0, extension=ScaleReport(trigger=(1, 'iteration'))
    )
    log = extensions.LogReport(trigger=(1, 'iteration'))
    trainer.extend(log)
    with pytest.warns(UserWarning, match='Non finite number found'):
        trainer.run()
    assert log.log[-1]['scaling/skipped'] > 0


def test_layers_can_be_chosen_by_path_or_pattern(tmp_path):
    extension = ScaleReport(trigger=(1, 'iteration'), layers=['/predictor/fc', '*/d*n'])
    make_trainer(tmp_path, extension=extension).run()
    assert {row['layer'] for row in rows_of(tmp_path)} == {'/predictor/fc', '/predictor/down'}


def test_a_pattern_that_matches_no_layer_is_an_error_that_names_it(tmp_path):
    trainer = make_trainer(tmp_path, extension=ScaleReport(layers='/conv9'))
    with pytest.raises(ValueError, match="no layer matches '/conv9'; the paths are .*conv1"):
        trainer.run()


def test_an_older_file_is_replaced(tmp_path):
    for _ in range(2):
        make_trainer(tmp_path, extension=ScaleReport(trigger=(4, 'iteration'))).run()
    assert [row['iteration'] for row in rows_of(tmp_path)] == ['4'] * 4 + ['8'] * 4


def test_a_resumed_training_continues_the_file_without_gap_or_double(tmp_path):
    def prepare(out):
        trainer = make_trainer(out, 'float32', extension=ScaleReport(trigger=(2, 'iteration')))
        snapshot = extensions.snapshot(filename='at{.updater.iteration}')
        trainer.extend(snapshot, trigger=(3, 'iteration'))
        return trainer

    prepare(tmp_path / 'whole').run()
    prepare(tmp_path / 'resumed').run()  # writes up to iteration 8
    trainer = prepare(tmp_path / 'resumed')
    chainer.serializers.load_npz(tmp_path / 'resumed' / 'at3', trainer)
    trainer.run()
    assert rows_of(tmp_path / 'resumed') == rows_of(tmp_path / 'whole')


def test_a_file_that_cannot_be_written_is_a_warning_and_training_goes_on(tmp_path):
    (tmp_path / 'scales.csv').mkdir()
    trainer = make_trainer(tmp_path, extension=ScaleReport(trigger=(4, 'iteration')))
    with pytest.warns(RuntimeWarning, match=r'iteration 4 is missing in .*scales.csv: '):
        trainer.run()
    assert trainer.updater.iteration == 8


def test_nothing_stays_attached_after_training(tmp_path):
    hooks = dict(chainer.get_function_hooks())
    make_trainer(tmp_path, extension=ScaleReport(trigger=(1, 'iteration'))).run()
    assert dict(chainer.get_function_hooks()) == hooks


def test_several_optimizers_have_their_names_before_the_paths(tmp_path):
    class TwoModels(training.updaters.StandardUpdater):
        def update_core(self):
            batch = self.converter(self.get_iterator('main').next(), self.device)
            for name in ('a', 'b'):
                optimizer = self.get_optimizer(name)
                optimizer.update(optimizer.target, *batch)

    both = {}
    for name in ('a', 'b'):
        source = make_trainer(tmp_path, 'wrapped' if name == 'a' else 'mixed16')
        both[name] = source.updater.get_optimizer('main')
    updater = TwoModels(source.updater.get_iterator('main'), both)
    trainer = training.Trainer(updater, (1, 'epoch'), out=str(tmp_path))
    trainer.extend(ScaleReport(trigger=(4, 'iteration')))
    trainer.run()
    layers = {row['layer'] for row in rows_of(tmp_path)}
    assert {'/a/predictor/fc', '/b/predictor/fc'} < layers and len(layers) == 6
