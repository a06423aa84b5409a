"""Training never dies of an overflow, and never trains on one."""

import chainerlp
from chainerlp import policies
from chainerlp.overflow import Recovery

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers, serializers


def overflow(recovery, times=1, loss_is_finite=True):
    for _ in range(times):
        recovery.count(True)
        recovery.update(True, loss_is_finite)


def clean(recovery, times=1):
    for _ in range(times):
        recovery.count(False)
        recovery.update(found_inf=False)


def test_one_overflow_now_and_then_is_counted_and_changes_nothing_else():
    recovery = Recovery()
    for _ in range(10):
        overflow(recovery)
        clean(recovery, 200)
    assert (recovery.skipped, recovery.backoff) == (10, 1.0)


def test_overflows_that_recur_make_gradients_smaller_until_they_no_longer_do():
    recovery = Recovery()
    backoffs = []
    for _ in range(5):  # a large batch after each small one
        clean(recovery)
        overflow(recovery)
        backoffs.append(recovery.backoff)
    assert backoffs == [1.0, 0.5, 0.25, 0.125, 0.0625]
    clean(recovery, 199)
    assert recovery.backoff == 0.0625  # no try at full size, which would overflow again
    clean(recovery)
    assert recovery.backoff == 0.125


def test_bad_data_that_recurs_does_not_take_gradients_out_of_float16():
    recovery = Recovery()
    for _ in range(100):
        overflow(recovery)
        clean(recovery)
    assert (recovery.skipped, recovery.backoff) == (100, 2.0**-10)


def test_each_further_overflow_in_a_row_halves_gradients():
    recovery = Recovery()
    overflow(recovery, 5)
    assert (recovery.skipped, recovery.backoff) == (5, 2.0**-4)


def test_after_a_streak_full_size_is_tried_again():
    recovery = Recovery()
    overflow(recovery, 30)
    assert recovery.backoff < 2.0**-24
    clean(recovery)
    assert recovery.backoff == 1.0
    clean(recovery, 200)
    overflow(recovery)
    assert recovery.backoff == 1.0


def test_if_full_size_overflows_gradients_go_back_to_where_they_were_clean_and_grow_slowly():
    recovery = Recovery()
    overflow(recovery, 5)
    clean(recovery)
    overflow(recovery)
    assert recovery.backoff == 2.0**-4
    backoffs = []
    for _ in range(800):
        clean(recovery)
        backoffs.append(recovery.backoff)
    assert backoffs == [2.0**-4] * 199 + [2.0**-3] * 200 + [2.0**-2] * 200 + [0.5] * 200 + [1.0]
    overflow(recovery, 2)
    assert recovery.backoff == 0.5
    clean(recovery)
    assert recovery.backoff == 1.0


def test_pairs_of_bad_updates_now_and_then_do_not_add_up():
    recovery = Recovery()
    for _ in range(50):
        overflow(recovery, 2)
        clean(recovery, 200)
    assert (recovery.skipped, recovery.backoff) == (100, 1.0)


def test_a_loss_that_is_not_finite_is_no_matter_of_scales():
    recovery = Recovery()
    overflow(recovery, 5, loss_is_finite=False)
    overflow(recovery)
    overflow(recovery, loss_is_finite=False)
    assert (recovery.skipped, recovery.backoff) == (7, 1.0)


def test_what_overflows_at_any_size_does_not_keep_gradients_small():
    recovery = Recovery()
    overflow(recovery, 31)
    assert recovery.backoff == 2.0**-30
    overflow(recovery)
    assert recovery.backoff == 1.0
    overflow(recovery, 100)
    assert recovery.backoff == 1.0
    clean(recovery, 200)
    overflow(recovery, 2)
    assert recovery.backoff == 0.5


def test_its_state_is_saved(tmp_path):
    recovery, restored = Recovery(), Recovery()
    overflow(recovery, 3)
    clean(recovery)
    overflow(recovery)
    clean(recovery, 150)
    assert recovery.backoff == 0.25
    serializers.save_npz(tmp_path / 'recovery.npz', recovery)
    serializers.load_npz(tmp_path / 'recovery.npz', restored)
    assert vars(restored) == vars(recovery)
    for each in (recovery, restored):
        overflow(each)
        clean(each, 250)
    assert vars(restored) == vars(recovery)


class Spoiled(chainer.FunctionNode):
    """Identity; its backward multiplies the gradient."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, inputs):
        return inputs

    def backward(self, indexes, grad_outputs):
        return (grad_outputs[0] * self.factor,)


class Net(chainer.Chain):
    """A classifier in which something can go wrong, once, at a place: see ``spoil``."""

    def __init__(self):
        super().__init__()
        self.place, self.value = None, 1.0
        numpy.random.seed(0)
        with self.init_scope(), chainer.using_config('dtype', chainer.mixed16):
            self.conv = L.Convolution2D(1, 4, 3)
            self.norm = L.BatchNormalization(4)
            self.fc1 = L.Linear(64, 16)
            self.fc2 = L.Linear(16, 3)

    def forward(self, x, t):
        if self.place == 'input':
            x = x.copy()
            x[0, 0, 0, 0] = self.value
        h = self._spoiled('first', F.relu(self.norm(self.conv(x))))
        h = self._spoiled('middle', F.relu(self.fc1(h)))
        y = self._spoiled('last', self.fc2(h))
        loss = self._spoiled('gradient of the loss', F.softmax_cross_entropy(y, t))
        return loss * self.value if self.place == 'loss' else loss

    def _spoiled(self, place, h):
        return Spoiled(self.value).apply((h,))[0] if self.place == place else h


GRADIENTS = ('first', 'middle', 'last', 'gradient of the loss')
PLACES = (*GRADIENTS, 'loss', 'input')
SETTINGS = {
    'adaptive': dict(policy=policies.Adaptive()),
    'adaptive, every 100': dict(policy=policies.Adaptive(interval=100)),
    'adaptive, auto': dict(policy=policies.Adaptive(interval=100), initial_scale='auto'),
    'amax': dict(policy=policies.Amax()),
    'amax, auto': dict(policy=policies.Amax(interval=100), initial_scale='auto'),
    'measured': dict(policy=policies.Measured(interval=100)),
    'measured, auto': dict(policy=policies.Measured(), initial_scale='auto'),
}


def batch():
    rng = numpy.random.RandomState(1)
    return rng.standard_normal((12, 1, 6, 6)).astype('e'), rng.randint(0, 3, 12).astype('i')


class Training:
    def __init__(self, kind=optimizers.Adam, **settings):
        self.model = Net()
        inner = kind(0.01)
        self.optimizer = chainerlp.AdaptiveLossScaling(inner, **settings).setup(self.model)

    def update(self, times=1):
        for _ in range(times):
            self.optimizer.update(self.model, *batch())
            for array in self.weights():
                assert numpy.isfinite(array).all()

    def update_badly(self, place, value, times):
        before = self.weights()
        self.model.place, self.model.value = place, value
        with numpy.errstate(all='ignore'):
            self.update(times)
        self.model.place = None
        for a, b in zip(self.weights(), before):
            numpy.testing.assert_array_equal(a, b)

    def weights(self):
        """Parameters and their float32 masters."""
        arrays = [param.array.copy() for param in self.model.params()]
        masters = [param.update_rule._fp32_param for param in self.model.params()]
        return arrays + [m.array.copy() for m in masters if m is not None and m.array is not None]

    def loss(self):
        return float(self.model(*batch()).array)

    def check_that_it_recovers(self, skipped):
        """Within 3 updates it trains on, and after a few more the loss has fallen."""
        before, parameters = self.loss(), [p.array.copy() for p in self.model.params()]
        self.update(3)
        assert self.optimizer.skipped <= skipped + 2
        skipped = self.optimizer.skipped
        for param, array in zip(self.model.params(), parameters):
            assert (param.array != array).any()
        self.update(10)
        assert self.optimizer.skipped == skipped
        assert self.loss() < before / 1.5


@pytest.mark.parametrize('times', [1, 5])
@pytest.mark.parametrize('value', [numpy.inf, numpy.nan], ids=str)
@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('settings', SETTINGS.values(), ids=SETTINGS)
def test_bad_updates_are_skipped_and_counted_and_training_recovers(settings, place, value, times):
    training = Training(**settings)
    training.update(3)
    training.update_badly(place, value, times)
    assert training.optimizer.skipped == times and training.optimizer.t == 3 + times
    training.check_that_it_recovers(times)


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('name', ['adaptive, auto', 'measured'])
@pytest.mark.filterwarnings('ignore:30 updates in a row were skipped')
def test_training_recovers_from_many_bad_updates_in_a_row(name, place):
    training = Training(**SETTINGS[name])
    training.update(3)
    training.update_badly(place, -numpy.inf, 40)
    assert training.optimizer.skipped == 40
    training.check_that_it_recovers(40)


@pytest.mark.parametrize('value', [numpy.inf, numpy.nan], ids=str)
@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('settings', SETTINGS.values(), ids=SETTINGS)
def test_a_training_that_begins_with_bad_updates_recovers(settings, place, value):
    training = Training(**settings)
    training.update_badly(place, value, 2)
    assert training.optimizer.skipped == 2
    training.check_that_it_recovers(2)


@pytest.mark.parametrize('place', PLACES)
def test_an_initial_scale_is_not_found_from_a_bad_gradient(place):
    undisturbed, training = Training(initial_scale='auto'), Training(initial_scale='auto')
    undisturbed.update()
    training.update_badly(place, numpy.nan, 2)
    # What is spoiled below the last layer does not matter to it.
    assert (training.optimizer.initial_scale == 'auto') == (place not in ('first', 'middle'))
    training.update()
    # In between, the last layer may have been updated: within a power of two.
    ratio = training.optimizer.initial_scale / undisturbed.optimizer.initial_scale
    assert undisturbed.optimizer.initial_scale > 1 and ratio in (0.5, 1, 2)


def micro_batches(bad):
    """Three micro-batches, one of which has a loss and gradients of NaN."""
    training = Training(policy=policies.Amax())
    training.update(3)
    x, t = batch()
    for _ in range(40):
        training.model.cleargrads()
        for k in range(3):
            training.model.place = 'loss' if k == bad else None
            training.model.value = numpy.nan
            training.optimizer.backward(training.model(x, t))
        training.model.place = None
        training.optimizer.update()
    return training.optimizer


@pytest.mark.parametrize('bad', [0, 1, 2])
@pytest.mark.filterwarnings('ignore:30 updates in a row were skipped')
def test_a_micro_batch_with_a_bad_loss_is_no_matter_of_scales_wherever_it_stands(bad):
    optimizer = micro_batches(bad)
    assert optimizer.skipped == 40 and optimizer.recovery.backoff == 1.0


class Amplified(chainer.FunctionNode):
    """Identity, whose gradient is made so large that it overflows unless gradients back off."""

    def forward(self, inputs):
        return inputs

    def backward(self, indexes, grad_outputs):
        return (grad_outputs[0] * 2.0**10,)


def test_who_ran_the_backward_pass_backs_off_where_another_optimizers_gradients_overflow():
    numpy.random.seed(0)
    with chainer.using_config('dtype', chainer.mixed16):
        encoder, decoder = L.Linear(8, 8), chainer.Sequential(L.Linear(8, 8), L.Linear(8, 3))
    of_encoder, of_decoder = (
        chainerlp.AdaptiveLossScaling(optimizers.SGD(1e-9), policies.Amax(), initial_scale=2.0**10)
        for _ in range(2)
    )
    of_encoder.setup(encoder)
    of_decoder.setup(decoder)
    x = numpy.random.standard_normal((16, 8)).astype('e')
    for _ in range(60):
        h = Amplified().apply((encoder(x),))[0]
        loss = F.sum(decoder(h))
        encoder.cleargrads()
        decoder.cleargrads()
        of_decoder.backward(loss)  # the overflow is in the encoder's gradients
        of_decoder.update()
        of_encoder.update()
    assert of_decoder.skipped == 0
    assert 1 <= of_encoder.skipped <= 15
    assert of_decoder.recovery.backoff < 1 == of_encoder.recovery.backoff


class Rooted(chainer.Chain):
    """Has a parameter whose gradient is inf at any scale: that of √0."""

    def __init__(self):
        super().__init__()
        with self.init_scope(), chainer.using_config('dtype', chainer.mixed16):
            self.layer = L.Linear(8, 3)
            self.root = chainer.Parameter(numpy.zeros(3, 'e'))

    def forward(self, h):
        y = self.layer(h)
        return F.sum(y) + F.sum(F.sqrt(self.root))


def two_models(updates, after_first_update=lambda of_encoder: None):
    """Trains a good encoder and a bad decoder with one loss, an optimizer each."""
    numpy.random.seed(0)
    with chainer.using_config('dtype', chainer.mixed16):
        encoder, decoder = L.Linear(8, 8), Rooted()
    of_encoder, of_decoder = (
        chainerlp.AdaptiveLossScaling(optimizers.SGD(1e-4), initial_scale=1.0) for _ in range(2)
    )
    of_encoder.setup(encoder)
    of_decoder.setup(decoder)
    x = numpy.random.standard_normal((16, 8)).astype('e')
    for _ in range(updates):
        with numpy.errstate(divide='ignore'):
            loss = decoder(encoder(x))
            encoder.cleargrads()
            decoder.cleargrads()
            of_encoder.backward(loss)
        of_encoder.update()
        after_first_update(of_encoder)
        of_decoder.update()
    return of_encoder, of_decoder


def test_a_model_that_is_bad_at_any_scale_is_named_and_does_not_stop_another():
    with pytest.warns(RuntimeWarning, match='in a row were skipped: .* of sqrt is') as caught:
        of_encoder, of_decoder = two_models(60)
    assert len([w for w in caught if '30 updates' in str(w.message)]) == 1
    assert (of_encoder.skipped, of_decoder.skipped) == (0, 60)
    assert of_encoder.recovery.backoff == 1.0
    assert abs(of_encoder.target.W.grad).max() > 0.01


def test_reading_the_count_of_skipped_updates_changes_nothing():
    unread, _ = two_models(6)
    read, _ = two_models(6, after_first_update=lambda optimizer: optimizer.skipped)
    assert read.recovery.backoff == unread.recovery.backoff < 1


@pytest.mark.parametrize('clear', ['cleargrads', 'zerograds'])
@pytest.mark.filterwarnings('ignore:.*zerograds:DeprecationWarning')
def test_passes_are_forgotten_with_the_update_that_was_made_with_them(clear):
    training = Training(initial_scale=1.0)
    x, t = batch()

    def update(place=None, value=1.0):
        training.model.place, training.model.value = place, value
        getattr(training.model, clear)()
        with numpy.errstate(all='ignore'):
            training.optimizer.backward(training.model(x, t))
        training.optimizer.update()

    update('loss', numpy.nan)
    assert training.optimizer.recovery.backoff == 1.0
    for _ in range(5):
        update('middle', numpy.inf)
    assert training.optimizer.recovery.backoff == 2.0**-4
    assert not any(param._backward_passes for param in training.model.params())
