"""ScaleReport measures exactly, at its trigger, on any trainer, and changes nothing."""

import csv
import errno
import os
import warnings

import chainerlp
from chainerlp import policies
from chainerlp.extensions import ScaleReport, scales_file

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


class MLP(chainer.Chain):
    """That of Chainer's MNIST example, with fewer units."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(None, 40)
            self.l2 = L.Linear(None, 30)
            self.l3 = L.Linear(None, 10)

    def forward(self, x):
        return self.l3(F.relu(self.l2(F.relu(self.l1(x)))))


class NothingToMeasure(chainer.Chain):
    """Its only layer's input wants no gradient."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.fc = L.Linear(None, 10)

    def forward(self, x):
        return self.fc(x)


def make_trainer(
    out, kind='mixed16', epochs=2, extension=None, batch_size=8, shrink=2.0**-12, net=ResNet
):
    dtype = numpy.float32 if kind == 'float32' else chainer.mixed16
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        model = L.Classifier(
            net(), lossfun=lambda y, t: F.softmax_cross_entropy(F.cast(y, 'f'), t) * shrink
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


class Uneven(chainer.dataset.Iterator):
    """Its batches differ in size, so that nobody can tell the next epoch before it is asked."""

    def __init__(self, dataset):
        self._dataset = dataset
        self._given = 0
        self.epoch_detail = 0.0
        self.previous_epoch_detail = -1.0
        self.is_new_epoch = False

    @property
    def epoch(self):
        return int(self.epoch_detail)

    def __next__(self):
        size = (3, 11, 6)[self._given % 3]
        self._given += 1
        self.previous_epoch_detail = self.epoch_detail
        self.epoch_detail += size / len(self._dataset)
        self.is_new_epoch = self.epoch > int(self.previous_epoch_detail)
        return self._dataset[:size]

    next = __next__


@pytest.mark.parametrize(
    'make_trigger',
    [
        lambda: (1, 'epoch'),
        lambda: (0.3, 'epoch'),
        lambda: training.triggers.ManualScheduleTrigger([0.5, 1, 1.7], 'epoch'),
        lambda: lambda trainer: trainer.updater.is_new_epoch,
    ],
    ids=['epoch', 'third of an epoch', 'schedule', 'new epoch'],
)
@pytest.mark.parametrize(
    'make_iterator',
    [
        lambda dataset: chainer.iterators.SerialIterator(dataset, 5),
        lambda dataset: chainer.iterators.SerialIterator(dataset, 3, shuffle=False),
        lambda dataset: chainer.iterators.MultithreadIterator(dataset, 7, n_threads=1),
        Uneven,
    ],
    ids=['five', 'three', 'threads', 'uneven'],
)
def test_it_measures_when_other_extensions_of_the_same_trigger_are_called(
    tmp_path, make_iterator, make_trigger
):
    trainer = make_trainer(tmp_path, 'float32', 3, ScaleReport(trigger=make_trigger()), net=MLP)
    iterators = trainer.updater._iterators
    iterators['main'] = make_iterator(iterators['main'].dataset)
    called = []
    trainer.extend(
        lambda trainer: called.append(str(trainer.updater.iteration)), 'other', make_trigger()
    )
    trainer.run()
    assert list(dict.fromkeys(row['iteration'] for row in rows_of(tmp_path))) == called
    assert len(called) >= 3


@pytest.mark.parametrize('priority', [1, 1000], ids=['after it', 'before it'])
@pytest.mark.parametrize('trigger', [(1, 'iteration'), (2, 'iteration'), (1, 'epoch')], ids=str)
def test_backward_passes_of_other_extensions_are_not_measured(tmp_path, trigger, priority):
    for is_run in (False, True):
        out = tmp_path / str(is_run)
        trainer = make_trainer(out, extension=ScaleReport(trigger=trigger))

        @training.make_extension(trigger=(1, 'iteration'), priority=priority)
        def run_backward(trainer):
            updater = trainer.updater
            batch = updater.converter(updater.get_iterator('main').dataset[:4])
            updater.get_optimizer('main').target(*batch).backward()

        if is_run:
            trainer.extend(run_backward)
        trainer.run()
    assert rows_of(tmp_path / 'True') == rows_of(tmp_path / 'False') != []


@pytest.mark.parametrize('trigger', [(3, 'iteration'), (1, 'epoch')], ids=str)
def test_its_trigger_is_asked_once_for_each_iteration(tmp_path, trigger):
    asked = []

    class Trigger(training.triggers.IntervalTrigger):
        def __call__(self, trainer):
            asked.append((trainer.updater.iteration, trainer.updater.epoch_detail))
            return super().__call__(trainer)

    make_trainer(tmp_path, extension=ScaleReport(trigger=Trigger(*trigger))).run()
    assert asked == [(iteration, iteration / 4) for iteration in range(1, 9)]


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


@pytest.mark.parametrize('epochs', [1, 2], ids=['stopped', 'went on'])
@pytest.mark.parametrize('snapshot_at', [1, 2, 3, 4])
@pytest.mark.parametrize(
    'trigger', [(1, 'iteration'), (2, 'iteration'), (0.5, 'epoch'), (0.6, 'epoch')], ids=str
)
def test_a_resumed_training_continues_the_file_without_gap_or_double(
    tmp_path, trigger, snapshot_at, epochs
):
    def prepare(out, epochs=2):
        extension = ScaleReport(trigger=trigger)
        trainer = make_trainer(out, 'float32', epochs, extension=extension, net=MLP)
        snapshot = extensions.snapshot(filename='at{.updater.iteration}')
        trainer.extend(snapshot, trigger=(1, 'iteration'))
        return trainer

    prepare(tmp_path / 'whole').run()
    prepare(tmp_path / 'resumed', epochs).run()
    trainer = prepare(tmp_path / 'resumed')
    chainer.serializers.load_npz(tmp_path / 'resumed' / f'at{snapshot_at}', trainer)
    trainer.run()
    assert rows_of(tmp_path / 'resumed') == rows_of(tmp_path / 'whole')


def test_a_snapshot_that_is_taken_before_the_report_is_as_good(tmp_path):
    def prepare(out):
        extension = ScaleReport(trigger=(2, 'iteration'))
        trainer = make_trainer(out, 'float32', extension=extension, net=MLP)
        snapshot = extensions.snapshot(filename='at{.updater.iteration}')
        trainer.extend(snapshot, trigger=(1, 'iteration'), priority=1000)
        return trainer

    prepare(tmp_path / 'whole').run()
    for iteration in (1, 3, 5):
        trainer = prepare(tmp_path / 'resumed')
        chainer.serializers.load_npz(tmp_path / 'whole' / f'at{iteration}', trainer)
        trainer.run()
        expected = [row for row in rows_of(tmp_path / 'whole') if int(row['iteration']) > iteration]
        assert rows_of(tmp_path / 'resumed')[-len(expected) :] == expected


@pytest.fixture
def broken_folder(tmp_path, monkeypatch):
    """Lets writing in the folder fail, for root too; `.error` says how, `None` for not at all."""

    class Full:
        """A file on a disk with room for half of what is written."""

        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self._file.close()

        def write(self, content):
            self._file.write(content[: len(content) // 2])
            self._file.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Folder:
        error = None

    def broken_open(path, mode='r', *args, **kwargs):
        is_meant = not isinstance(path, int) and os.fspath(path).startswith(str(tmp_path))
        if not is_meant or mode in ('r', 'rb') or Folder.error is None:
            return real_open(path, mode, *args, **kwargs)
        if Folder.error == errno.ENOSPC:
            return Full(real_open(path, mode, *args, **kwargs))
        raise OSError(Folder.error, os.strerror(Folder.error), path)

    real_open = open
    monkeypatch.setattr('builtins.open', broken_open)
    monkeypatch.setattr('io.open', broken_open)  # that of zipfile, and so of NumPy
    return Folder


BROKEN = pytest.mark.parametrize(
    'error', [errno.ENOSPC, errno.EROFS, errno.EACCES], ids=['full', 'read-only', 'forbidden']
)


@BROKEN
def test_what_cannot_be_written_is_a_warning_and_training_goes_on(tmp_path, broken_folder, error):
    extension = ScaleReport(trigger=(4, 'iteration'), histogram=True)
    trainer = make_trainer(tmp_path, extension=extension)
    broken_folder.error = error
    with pytest.warns(RuntimeWarning) as caught:
        trainer.run()
    messages = [str(w.message) for w in caught if 'ScaleReport' in str(w.message)]
    expected = [
        f'ScaleReport: iteration {iteration} is missing in {tmp_path / name}: {os.strerror(error)}'
        for iteration in (4, 8)
        for name in ('scales.csv', 'histogram.npz')
    ]
    assert messages == expected
    assert trainer.updater.iteration == 8
    assert os.listdir(tmp_path) == []


@BROKEN
def test_what_was_written_before_the_disk_was_full_stays_and_goes_on_later(
    tmp_path, broken_folder, error
):
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    for out in (whole, broken):
        extension = ScaleReport(trigger=(1, 'iteration'), histogram=True)
        trainer = make_trainer(out, extension=extension, epochs=1)

        @training.make_extension(trigger=(1, 'iteration'), priority=1000)
        def breaks(trainer, out=out):
            is_broken = out == broken and trainer.updater.iteration in (2, 3)
            broken_folder.error = error if is_broken else None

        trainer.extend(breaks)
        if out == broken:
            with pytest.warns(RuntimeWarning, match='iteration [23] is missing'):
                trainer.run()
        else:
            trainer.run()
    expected = [row for row in rows_of(whole) if row['iteration'] in '14']
    assert rows_of(broken) == expected and len(expected) == 8
    assert set(os.listdir(broken)) == {'scales.csv', 'histogram.npz'}
    with numpy.load(broken / 'histogram.npz') as file:
        assert file['iteration'].tolist() == [1] * 4 + [4] * 4


def test_a_half_written_line_is_not_continued(tmp_path):
    """What a crash left behind is dropped when the training is resumed."""
    make_trainer(tmp_path, extension=ScaleReport(trigger=(4, 'iteration')), epochs=1).run()
    before = rows_of(tmp_path)
    with open(tmp_path / 'scales.csv', 'a') as file:
        file.write('4,/predictor/fc,0,1.0,1.')
    scales_file.start(tmp_path / 'scales.csv', 8)
    assert rows_of(tmp_path) == before


def test_a_file_that_is_taken_away_meanwhile_is_begun_anew(tmp_path):
    trainer = make_trainer(tmp_path, extension=ScaleReport(trigger=(1, 'iteration')), epochs=1)

    @training.make_extension(trigger=(1, 'iteration'), priority=1)
    def take_away(trainer):
        if trainer.updater.iteration == 2:
            os.remove(tmp_path / 'scales.csv')

    trainer.extend(take_away)
    trainer.run()
    assert [row['iteration'] for row in rows_of(tmp_path)] == ['3'] * 4 + ['4'] * 4


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
