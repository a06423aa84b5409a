"""ScaleReport measures exactly, on any trainer, and changes nothing."""

import os
import warnings

import chainerlp
from chainerlp import policies
from chainerlp.extensions import ScaleReport
from tests.extensions.reported_trainings import MLP, NothingToMeasure, ResNet, make_trainer, rows_of

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers, training
from chainer.training import extensions


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


@pytest.mark.parametrize(
    'net, shrink, paths, uses',
    [(MLP, 2.0**-14, ['l2', 'l3'], 2), (ResNet, 2.0**-12, ['down', 'fc'], 4)],
    ids=['MLP', 'residual CNN'],
)
def test_underflow_equals_that_of_float64_products_on_a_plain_mixed16_trainer(
    tmp_path, net, shrink, paths, uses
):
    extension = ScaleReport(trigger=(1, 'iteration'))
    trainer = make_trainer(tmp_path, epochs=1, extension=extension, net=net, shrink=shrink)
    hook = Slow()
    with hook:
        trainer.run()
    rows = rows_of(tmp_path)
    predictor = trainer.updater.get_optimizer('main').target.predictor
    assert len(rows) == 4 * uses  # iterations, uses of layers whose input wants a gradient
    seen = 0
    for path in paths:
        mine = [row for row in rows if row['layer'] == f'/predictor/{path}']
        slow = hook.rates[predictor[path].W.shape]
        assert len(mine) == len(slow) == 4
        for row, (rate, near) in zip(mine, slow):
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


@pytest.mark.parametrize('net', [MLP, ResNet])
@pytest.mark.parametrize('kind', ['float32', 'mixed16', 'static', 'dynamic', 'wrapped'])
def test_training_with_it_ends_with_identical_weights(tmp_path, kind, net):
    weights = []
    for is_attached in (False, True):
        trainer = make_trainer(tmp_path, kind, net=net)
        if is_attached:
            trainer.extend(ScaleReport(trigger=(1, 'iteration'), histogram=True))
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


class Rounded(chainer.FunctionHook):
    """The share of the output gradients of layers that rounding to float16 loses, unscaled."""

    def __init__(self):
        self.rates = []

    def backward_postprocess(self, function, in_data, out_grad):
        if len(in_data) > 1 and 'Linear' in type(function).__name__:
            gy = numpy.abs(out_grad[0])
            self.rates.append(((gy <= 2.0**-25) & (gy > 0)).mean())


def test_of_a_compute_dtype_all_layers_and_what_rounding_their_output_gradients_loses(tmp_path):
    extension = ScaleReport(trigger=(1, 'iteration'), histogram=True)
    trainer = make_trainer(tmp_path, 'computing', 1, extension, net=MLP, shrink=2.0**-20)
    with Rounded() as hook:
        trainer.run()
    rows = rows_of(tmp_path)
    assert len(rows) == 4 * 3  # the first layer rounds one, too
    assert {row['layer'] for row in rows} == {f'/predictor/l{i}' for i in (1, 2, 3)}
    by_iteration = [rows[start : start + 3] for start in range(0, 12, 3)]
    measured = [float(row['underflow_unscaled']) for of in by_iteration for row in reversed(of)]
    assert measured == pytest.approx(hook.rates)
    assert max(hook.rates) > 0.5
    for row in rows:
        assert float(row['underflow']) <= 1e-3  # the policy's threshold
        assert row['total_scale'] == row['scale']
        assert float(row['scale']) > 1
        assert row['overflow'] == '0.0'
    assert trainer.observation['scaling/saturated'] == 0
    with numpy.load(tmp_path / 'histogram.npz') as histogram:
        assert len(histogram['counts']) == len(rows)


def test_underflow_is_counted_in_the_format_of_the_products(tmp_path):
    model = L.Linear(3, 2)
    optimizer = chainerlp.AdaptiveLossScaling(
        optimizers.SGD(0.0), policies.Fixed(1), compute_dtype='float8_e4m3'
    ).setup(model)
    iterator = chainer.iterators.SerialIterator(numpy.ones((4, 3), 'f'), 4)

    def lossfun(x):  # gradients of 2^-12: zero in E4M3, and not in float16
        return F.sum(model(x)) * numpy.float32(2.0**-12)

    updater = training.updaters.StandardUpdater(iterator, optimizer, loss_func=lossfun)
    trainer = training.Trainer(updater, (1, 'iteration'), out=str(tmp_path))
    trainer.extend(ScaleReport(trigger=(1, 'iteration')))
    trainer.run()
    (row,) = rows_of(tmp_path)
    assert float(row['underflow']) == 1


def test_what_is_saturated_is_reported(tmp_path):
    extension = ScaleReport(trigger=(1, 'iteration'))
    trainer = make_trainer(tmp_path, 'computing', 1, extension, net=MLP)
    model = trainer.updater.get_optimizer('main').target
    model(numpy.ones((1, 1, 8, 8), 'f'), numpy.zeros(1, 'i'))
    model.predictor.l1.W.array[0, 0] = 1e6
    with pytest.warns(RuntimeWarning, match='/predictor/l1'):
        trainer.run()
    assert trainer.observation['scaling/saturated'] >= 4  # once an iteration


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


@pytest.mark.parametrize(
    'trigger',
    [lambda: (1, 'iteration'), lambda: (3, 'iteration'), training.triggers.OnceTrigger],
    ids=['each', 'third', 'once'],
)
@pytest.mark.parametrize('kind', ['mixed16', 'wrapped'])
def test_a_model_without_anything_to_measure_is_one_warning(tmp_path, kind, trigger):
    extension = ScaleReport(trigger=trigger())
    trainer = make_trainer(tmp_path, kind, extension=extension, net=NothingToMeasure)
    with pytest.warns(RuntimeWarning) as caught:
        trainer.run()
    messages = [str(w.message) for w in caught if 'ScaleReport' in str(w.message)]
    assert messages == [
        'ScaleReport: Classifier has no layer that passes a gradient on to its input; nothing is'
        ' written to scales.csv'
    ]
    assert trainer.updater.iteration == 8
    assert os.listdir(tmp_path) == []


def test_layers_that_have_nothing_to_measure_are_named_in_the_warning(tmp_path):
    extension = ScaleReport(trigger=(1, 'iteration'), layers='*/conv1')
    trainer = make_trainer(tmp_path, extension=extension)
    with pytest.warns(RuntimeWarning, match=r"no layer among \['\*/conv1'\] that passes"):
        trainer.run()


def test_a_model_with_something_to_measure_is_no_warning(tmp_path):
    extension = ScaleReport(trigger=(3, 'iteration'))
    with warnings.catch_warnings():
        warnings.simplefilter('error', RuntimeWarning)
        make_trainer(tmp_path, extension=extension).run()


def test_an_interval_in_iterations_leaves_the_other_iterations_without_a_hook(tmp_path):
    trainer = make_trainer(tmp_path, extension=ScaleReport(trigger=(3, 'iteration')))
    counts = []
    trainer.extend(lambda trainer: counts.append(len(chainer.get_function_hooks())), 'count')
    trainer.run()
    assert counts == [0, 1, 0, 0, 1, 0, 0, 1]  # after an iteration, and so in the next one


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


class OwnForward(L.Linear):
    """A user's layer, which conversion leaves alone."""

    def forward(self, x):
        return F.linear(x, self.W, self.b)


def test_a_layer_that_is_not_scaled_reports_the_total_scale_that_passes_through_it(tmp_path):
    numpy.random.seed(0)
    with chainer.using_config('dtype', chainer.mixed16):
        layers = chainer.ChainList(L.Linear(6, 6), OwnForward(6, 6), L.Linear(6, 3))
        x = numpy.random.standard_normal((8, 6)).astype(numpy.float16)
    optimizer = chainerlp.AdaptiveLossScaling(optimizers.SGD(), policies.Fixed(8))
    optimizer.setup(layers)
    chainerlp.restore(layers[1])
    iterator = chainer.iterators.SerialIterator(list(x), 8)
    updater = training.updaters.StandardUpdater(
        iterator, optimizer, loss_func=lambda x: F.sum(layers[2](layers[1](layers[0](x))))
    )
    trainer = training.Trainer(updater, (1, 'iteration'), out=str(tmp_path))
    trainer.extend(ScaleReport(trigger=(1, 'iteration')))
    trainer.run()
    rows = {row['layer']: row for row in rows_of(tmp_path)}
    assert float(rows['/1']['scale']) == 1 and float(rows['/1']['total_scale']) == 8
    assert float(rows['/2']['total_scale']) == 8


def test_the_back_off_is_reported_where_the_optimizer_is_wrapped(tmp_path):
    for kind, expected in [('wrapped', 0.25), ('mixed16', None)]:
        extension = ScaleReport(trigger=(1, 'iteration'))
        trainer = make_trainer(tmp_path, kind, extension=extension, epochs=1)
        if kind == 'wrapped':
            recovery = trainer.updater.get_optimizer('main').recovery
            for _ in range(3):
                recovery.update(found_inf=True)
            recovery.update(found_inf=False)  # leads to a try at full size, which fails
            recovery.update(found_inf=True)
        log = extensions.LogReport(trigger=(1, 'iteration'))
        trainer.extend(log)
        trainer.run()
        assert {entry.get('scaling/backoff') for entry in log.log} == {expected}


def test_only_the_first_worker_writes(tmp_path):
    class Communicator:
        rank = 1

    trainer = make_trainer(tmp_path, 'mixed16', extension=ScaleReport(trigger=(1, 'iteration')))
    trainer.updater.get_optimizer('main').communicator = Communicator()
    trainer.run()
    assert not (tmp_path / 'scales.csv').exists()
