"""A training that is resumed from a snapshot goes on as if it had not been interrupted."""

import warnings

import chainerlp
from chainerlp import links, optimizer_hooks, policies

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers, serializers, training
from chainer.training import extensions


class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.fc1 = L.Linear(6, 8)
            self.norm = L.BatchNormalization(8)
            self.twice = L.Linear(8, 8)
            self.fc2 = L.Linear(8, 3)

    def forward(self, x):
        h = F.relu(self.norm(self.fc1(x)))
        return self.fc2(F.relu(self.twice(F.relu(self.twice(h)))))


def make_trainer(out, stop=12, policy=None, wrap=True, seed=0, **kwargs):
    numpy.random.seed(seed)
    with chainer.using_config('dtype', chainer.mixed16):
        model = L.Classifier(Net())
        x = numpy.random.RandomState(7).standard_normal((20, 6)).astype('e')
    t = numpy.random.RandomState(8).randint(0, 3, 20).astype('i')
    optimizer = optimizers.Adam(0.01)
    if wrap:
        policy = policy or policies.Measured(interval=4)
        optimizer = chainerlp.AdaptiveLossScaling(optimizer, policy, **kwargs)
    optimizer.use_fp32_update()
    optimizer.setup(model)
    if wrap:
        optimizer.add_hook(optimizer_hooks.GradientClipping(1.0))
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-3))
    dataset = chainer.datasets.TupleDataset(x, t)
    # A shuffled order comes from the global random state, which no snapshot holds.
    iterator = chainer.iterators.SerialIterator(dataset, 5, shuffle=False)
    updater = training.updaters.StandardUpdater(iterator, optimizer)
    trainer = training.Trainer(updater, (stop, 'iteration'), out=str(out))
    trainer.extend(chainerlp.extensions.ScaleReport(trigger=(1, 'iteration')))
    trainer.extend(extensions.snapshot(filename='at{.updater.iteration}'), trigger=(1, 'iteration'))
    return trainer


def target(trainer):
    return trainer.updater.get_optimizer('main').target


@pytest.mark.parametrize('resumed_at', [1, 2, 3, 5, 8, 11])
@pytest.mark.parametrize(
    'settings',
    [
        dict(policy=policies.Measured(interval=4)),
        dict(policy=policies.Adaptive(interval=7), initial_scale='auto'),
        dict(policy=policies.Amax()),
    ],
    ids=['measured', 'adaptive, auto', 'amax'],
)
def test_weights_are_identical_to_an_uninterrupted_runs(tmp_path, settings, resumed_at):
    whole = make_trainer(tmp_path / 'whole', **settings)
    whole.run()
    resumed = make_trainer(tmp_path / 'whole', seed=1, **settings)
    serializers.load_npz(tmp_path / 'whole' / f'at{resumed_at}', resumed)
    resumed.run()
    for actual, expected in zip(target(resumed).params(), target(whole).params()):
        numpy.testing.assert_array_equal(actual.array, expected.array)
        master = expected.update_rule._fp32_param
        if master is not None:
            copied = actual.update_rule._fp32_param
            numpy.testing.assert_array_equal(copied.array, master.array)
    layers = target(whole).predictor
    for name in ('fc2', 'twice'):
        held = getattr(layers, name).layer_scale._held
        assert getattr(target(resumed).predictor, name).layer_scale._held == held


def test_the_count_of_skipped_updates_and_the_back_off_are_restored(tmp_path):
    trainer = make_trainer(tmp_path, stop=3)
    trainer.run()
    optimizer = trainer.updater.get_optimizer('main')
    optimizer._conclude()
    for _ in range(3):
        optimizer._recovery.count(True)
        optimizer._recovery.update(found_inf=True)
    assert (optimizer.skipped, optimizer.recovery.backoff) == (3, 0.25)
    serializers.save_npz(tmp_path / 'optimizer.npz', optimizer)
    restored = make_trainer(tmp_path).updater.get_optimizer('main')
    serializers.load_npz(tmp_path / 'optimizer.npz', restored)
    assert (restored.skipped, restored.recovery.backoff) == (3, 0.25)


def test_a_snapshot_of_an_unwrapped_run_loads_into_a_wrapped_one_with_a_note(tmp_path):
    plain = make_trainer(tmp_path / 'plain', stop=4, wrap=False)
    plain.run()
    wrapped = make_trainer(tmp_path / 'wrapped')
    with pytest.warns(RuntimeWarning, match='made without AdaptiveLossScaling'):
        serializers.load_npz(tmp_path / 'plain' / 'at4', wrapped)
    for actual, expected in zip(target(wrapped).params(), target(plain).params()):
        numpy.testing.assert_array_equal(actual.array, expected.array)
    wrapped.run()
    assert wrapped.updater.iteration == 12


def test_a_snapshot_of_a_wrapped_run_loads_into_an_unwrapped_one(tmp_path):
    wrapped = make_trainer(tmp_path / 'wrapped', stop=4)
    wrapped.run()
    plain = make_trainer(tmp_path / 'plain', wrap=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        serializers.load_npz(tmp_path / 'wrapped' / 'at4', plain)
    for actual, expected in zip(target(plain).params(), target(wrapped).params()):
        numpy.testing.assert_array_equal(actual.array, expected.array)
    plain.run()


def test_a_snapshot_without_scales_or_master_copies_may_be_loaded_loosely(tmp_path):
    plain = make_trainer(tmp_path, stop=1, wrap=False)
    plain.run()
    wrapped = make_trainer(tmp_path / 'other', stop=1)
    wrapped.run()
    with pytest.warns(RuntimeWarning, match='made without AdaptiveLossScaling'):
        serializers.load_npz(str(tmp_path / 'at1'), wrapped, strict=False)
    weights = target(wrapped).predictor.fc1.W
    assert weights.update_rule._fp32_param is None
    numpy.testing.assert_array_equal(weights.array, target(plain).predictor.fc1.W.array)


@pytest.mark.parametrize('wrap', [True, False])
def test_going_back_to_a_snapshot_forgets_later_master_copies_and_scales(tmp_path, wrap):
    def setup(wrap):
        with chainer.using_config('dtype', chainer.mixed16):
            model = chainer.Sequential(L.Linear(6, 8), F.relu, L.Linear(8, 3))
        optimizer = optimizers.SGD(0.1)
        if wrap:
            optimizer = chainerlp.AdaptiveLossScaling(optimizer, policies.Measured(interval=4))
        return optimizer.setup(model)

    optimizer = setup(wrap=True)
    model = optimizer.target
    x = numpy.random.RandomState(0).standard_normal((4, 6)).astype('e')
    serializers.save_npz(str(tmp_path / 'model'), model)
    serializers.save_npz(str(tmp_path / 'optimizer'), optimizer if wrap else setup(wrap=False))
    before = [param.array.copy() for param in model.params()]
    for _ in range(3):
        optimizer.update(lambda: F.sum(model(x)))
    serializers.load_npz(str(tmp_path / 'model'), model)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)
        serializers.load_npz(str(tmp_path / 'optimizer'), optimizer)
    optimizer.lr = 0.0  # an update that takes the master copies and changes nothing
    optimizer.update(lambda: F.sum(model(x)))
    for param, array in zip(model.params(), before):
        numpy.testing.assert_array_equal(param.array, array)
    assert [kept.age for kept in model[2].layer_scale._held.values()] == [1]


def test_hdf5_holds_all_that_npz_does(tmp_path):
    trainer = make_trainer(tmp_path, stop=5)
    trainer.run()
    optimizer = trainer.updater.get_optimizer('main')
    restored = make_trainer(tmp_path, seed=1).updater.get_optimizer('main')
    serializers.save_hdf5(tmp_path / 'optimizer.h5', optimizer)
    serializers.load_hdf5(tmp_path / 'optimizer.h5', restored)
    for actual, expected in zip(restored.target.params(), optimizer.target.params()):
        master = expected.update_rule._fp32_param
        if master is not None:
            copied = actual.update_rule._fp32_param
            numpy.testing.assert_array_equal(copied.array, master.array)
    layer_scales = [o.target.predictor.fc2.layer_scale for o in (restored, optimizer)]
    assert layer_scales[0]._held == layer_scales[1]._held


def test_an_hdf5_file_of_an_unwrapped_run_loads_with_a_note(tmp_path):
    trainer = make_trainer(tmp_path, stop=2, wrap=False)
    trainer.run()
    serializers.save_hdf5(tmp_path / 'plain.h5', trainer.updater.get_optimizer('main'))
    wrapped = make_trainer(tmp_path).updater.get_optimizer('main')
    with pytest.warns(RuntimeWarning, match='made without AdaptiveLossScaling'):
        serializers.load_hdf5(tmp_path / 'plain.h5', wrapped)
    assert wrapped.t == 2


@pytest.mark.parametrize('is_loaded', [True, False])
@pytest.mark.filterwarnings('ignore:the snapshot was made without')
def test_momentum_of_a_training_in_float16_goes_on_in_float32(tmp_path, is_loaded):
    with chainer.using_config('dtype', chainer.mixed16):
        model = L.Linear(4, 2)
    x = numpy.ones((2, 4), 'e')
    plain = optimizers.Adam().setup(model)  # without use_fp32_update()
    plain.update(lambda: F.sum(model(x)))
    assert model.W.update_rule.state['v'].dtype == numpy.float16
    if is_loaded:
        serializers.save_npz(tmp_path / 'plain.npz', plain)
        wrapped = chainerlp.AdaptiveLossScaling(optimizers.Adam()).setup(model)
        serializers.load_npz(tmp_path / 'plain.npz', wrapped)
    else:
        wrapped = chainerlp.AdaptiveLossScaling(plain)
    for _ in range(2):
        wrapped.update(lambda: F.sum(model(x)))
        assert {a.dtype.name for a in model.W.update_rule.state.values()} == {'float32'}


class Tied(chainer.Chain):
    """A language model whose output layer is its embedding, before a layer of a foreign weight."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(9, 8)
            self.hidden = L.Linear(8, 8)
        self.foreign = chainer.Parameter(0.3 * numpy.eye(8, dtype='e'))

    def forward(self, ids, factor):
        h = F.relu(self.hidden(F.linear(self.embed(ids), self.foreign)))
        return F.softmax_cross_entropy(F.linear(h, self.embed.W), ids[::-1].copy()) * factor


def train_tied(first, last, load=None):
    """Makes some updates; a snapshot is loaded before them if ``load`` is given."""
    numpy.random.seed(0)
    with chainer.using_config('dtype', chainer.mixed16):
        model = Tied()
    # Bounds that no scale comes to: it would be the same when it is chosen anew.
    bounds = dict(max_scale=2.0**16, max_total_scale=2.0**30)
    policy = policies.Adaptive(interval=100, power_of_two=False, **bounds)
    optimizer = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.5), policy, initial_scale=1.0)
    optimizer.setup(model)
    if load is not None:
        load(optimizer)
    for k in range(first, last):
        ids = numpy.random.RandomState(k).randint(0, 9, 16)
        optimizer.update(model, ids, 3e-6 * (k + 1))
    return optimizer


def saved_and_loaded(path, optimizer, is_npz):
    """Saves an optimizer with its model, and returns what loads both into another."""
    save = serializers.save_npz if is_npz else serializers.save_hdf5
    load = serializers.load_npz if is_npz else serializers.load_hdf5
    save(str(path / 'model'), optimizer.target)
    save(str(path / 'optimizer'), optimizer)

    def load_both(other):
        load(str(path / 'model'), other.target)
        load(str(path / 'optimizer'), other)

    return load_both


@pytest.mark.parametrize('is_npz', [True, False], ids=['npz', 'hdf5'])
def test_scales_of_layers_called_as_functions_are_resumed(tmp_path, is_npz):
    load = saved_and_loaded(tmp_path, train_tied(0, 3), is_npz)
    resumed, whole = train_tied(3, 8, load), train_tied(0, 8)
    for actual, expected in zip(resumed.target.params(), whole.target.params()):
        masters = [param.update_rule._fp32_param.array for param in (actual, expected)]
        numpy.testing.assert_array_equal(*masters)
    own = [
        {key: scale._held for key, scale in optimizer._functional_layers._own.items()}
        for optimizer in (resumed, whole)
    ]
    assert own[0] == own[1]
    assert {'/embed/W', 'derived/0'} == own[0].keys()


@pytest.mark.parametrize('is_npz', [True, False], ids=['npz', 'hdf5'])
def test_snapshots_without_the_scales_of_functions_load_silently(tmp_path, monkeypatch, is_npz):
    with monkeypatch.context() as patch:
        patch.setattr(links.FunctionalLayers, 'serialize', lambda self, serializer: None)
        load = saved_and_loaded(tmp_path, train_tied(0, 3), is_npz)
    optimizer = train_tied(0, 3)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        load(optimizer)
    # Those of later than the snapshot are gone.
    assert not optimizer._functional_layers._own
