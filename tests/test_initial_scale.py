"""The scale that a pass begins with, from the gradients of the pass before."""

import chainerlp
from chainerlp import backprop, policies
from chainerlp.initial_scale import DelayedScale

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers, serializers

# An update that was skipped although the loss was finite.
OVERFLOW = [(True, True)]


def make_model(dtype=chainer.mixed16):
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        return chainerlp.convert(L.Linear(4, 3), policies.Adaptive())


def loss_of(model, factor, cast=True):
    x = numpy.random.RandomState(1).standard_normal((8, 4)).astype(model.W.dtype)
    y = model(x)
    loss = F.sum(F.cast(y, 'f') if cast else y) * factor
    loss.model = model  # a graph does not keep its parameters
    return loss


def observe(loss, delayed=None, **kwargs):
    """Returns what a pass says of the next one."""
    delayed = delayed or DelayedScale(**kwargs)
    scaled = backprop.ScaledBackprop()
    scaled.run(loss, delayed.scale)
    delayed.observe(scaled.first_gradients, loss.dtype)
    return delayed


@pytest.mark.parametrize('exponent', [-24, -20, -12, -3, 0, 5])
def test_the_largest_gradient_that_no_layer_scaled_would_have_been_under_a_sixteenth(exponent):
    delayed = observe(loss_of(make_model(), 2.0**exponent))
    # gb is 8 times gy, which is 2^exponent everywhere; 2^11 is the largest power of two under
    # 65504 / 16.
    assert delayed.scale == min(2.0 ** (11 - 3 - exponent), 2.0**24)


@pytest.mark.parametrize('policy, margin', [(policies.Amax(margin=10.0), 10), (policies.Amax(), 4)])
def test_it_leaves_the_margin_of_the_policy(policy, margin):
    model = make_model()
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.0), policy).setup(model)
    wrapped.update(lambda: loss_of(model, 2.0**-4))
    assert wrapped.initial_scale == 2.0 ** (15 - margin + 4)  # gy is 2^-4 everywhere


def test_a_gradient_that_starts_in_float16_must_not_overflow_at_once():
    model = make_model()
    assert observe(loss_of(model, 1.0, cast=False)).scale == 2.0**8
    assert observe(loss_of(model, 2.0**-12, cast=False)).scale == 2.0**15


def test_it_never_exceeds_what_the_policy_allows_in_all():
    for largest, expected in ((1024.0, 1024.0), (1000.0, 512.0)):
        assert observe(loss_of(make_model(), 2.0**-10), largest=largest).scale == expected


@pytest.mark.parametrize('factor', [0.0, numpy.inf, numpy.nan])
def test_zeros_and_what_is_not_finite_say_nothing(factor):
    delayed = DelayedScale()
    with numpy.errstate(invalid='ignore'):
        observe(loss_of(make_model(), factor), delayed)
    assert delayed.scale == 1.0 and not delayed.is_known
    observe(loss_of(make_model(), 2.0**-10), delayed)
    with numpy.errstate(invalid='ignore'):
        observe(loss_of(make_model(), factor), delayed)
    assert delayed.scale == 2.0**18 and delayed.is_known


def test_no_pass_decides_for_ever():
    delayed = DelayedScale()
    scales = [
        observe(loss_of(make_model(), 2.0**exponent), delayed).scale for exponent in (-10, -7, -10)
    ]
    assert scales == [2.0**18, 2.0**15, 2.0**18]


def test_in_float32_it_is_one():
    assert observe(loss_of(make_model(numpy.float32), 2.0**-10)).scale == 1.0


class Temperature(chainer.Chain):
    """Has a float16 parameter between the loss and the first layer, and one behind it."""

    def __init__(self, first, behind):
        super().__init__()
        numpy.random.seed(0)
        with self.init_scope(), chainer.using_config('dtype', chainer.mixed16):
            self.layer = L.Linear(4, 3)
            self.temperature = chainer.Parameter(numpy.full((), first, 'e'))
            self.behind = chainer.Parameter(numpy.full((), behind, 'e'))

    def forward(self, x):
        h = self.layer(x * F.broadcast_to(self.behind, x.shape))
        return h * F.broadcast_to(self.temperature, h.shape)


def test_half_parameters_that_are_reached_before_any_layer_count_too():
    model = chainerlp.convert(Temperature(2.0**-4, 1.0), policies.Fixed(1))
    x = numpy.full((8, 4), 60.0, 'e')
    with chainer.using_config('train', True):
        y = model(x)
    gradient = float(abs(y.array / 2.0**-4).max())  # before it is summed up, at a scale of 1
    delayed = observe(F.sum(F.cast(model(x), 'f')))
    assert 65504 / 32 < delayed.scale * gradient <= 65504 / 16 * 1.01


def test_what_a_layer_has_scaled_does_not_count():
    quiet, loud = (
        observe(F.sum(F.cast(model(numpy.ones((8, 4), 'e')), 'f'))).scale
        for model in (
            chainerlp.convert(Temperature(1.0, behind), policies.Fixed(1)) for behind in (1.0, 64.0)
        )
    )
    # 64 times the activations make gW of the first layer as many times larger, but not gy.
    assert loud == quiet / 64


def test_auto_saves_a_gradient_that_would_be_lost_before_the_first_layer():
    gradients = {}
    for setting in (1.0, 'auto'):
        model = make_model()
        wrapped = chainerlp.AdaptiveLossScaling(
            optimizers.SGD(0.0), policies.Amax(), initial_scale=setting
        ).setup(model)
        x = numpy.random.RandomState(1).standard_normal((8, 4)).astype('e')
        for _ in range(2):
            model.cleargrads()
            y = F.cast(model(x), 'f')
            # Half of a row is 2^20 times the other half, which float16 loses at a scale of 1.
            weights = numpy.where(numpy.arange(8) < 4, 2.0**-7, 2.0**-27).astype('f')
            wrapped.backward(F.sum(y * weights[:, None]))
        gradients[setting] = chainerlp.unscaled_grad(model.W)
    expected = weights @ x.astype('d')
    small = weights * (weights < 2.0**-20) @ x.astype('d')
    for setting, tolerance in (('auto', 0.01), (1.0, 0.1)):
        error = numpy.abs(gradients[setting] - expected)
        assert (error <= 2.0**-10 * abs(expected) + tolerance * abs(small)).all() or setting == 1.0


@pytest.mark.parametrize('stateful', ['ctc', 'hinge'])
def test_no_backward_function_is_run_twice(stateful):
    def loss(y):
        if stateful == 'hinge':
            return F.hinge(y, numpy.array([0, 1, 2, 0], 'i'))
        xs = [F.cast(y[:2], 'f'), F.cast(y[2:], 'f')]
        return F.connectionist_temporal_classification(xs, numpy.array([[0], [1]], 'i'), 2)

    gradients = []
    for dtype in (chainer.mixed16, numpy.float32):
        model = make_model(dtype)
        wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.0), policies.Amax()).setup(model)
        x = numpy.random.RandomState(1).standard_normal((4, 4)).astype(model.W.dtype)
        for _ in range(3):
            wrapped.update(lambda model=model, x=x: loss(model(x)))
        gradients.append(model.W.grad)
    numpy.testing.assert_allclose(*gradients, rtol=2.0**-7, atol=2.0**-8)


def test_function_hooks_and_debug_mode_see_one_backward_pass():
    calls = []

    class Hook(chainer.FunctionHook):
        name = 'counting'

        def backward_postprocess(self, function, in_data, out_grad):
            calls.append(function.label)

    model = make_model()
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.0)).setup(model)
    with Hook(), chainer.using_config('debug', True):
        wrapped.update(lambda: loss_of(model, 2.0**-10))
    assert len(calls) == len(set(calls)) == 4
    assert wrapped.skipped == 0


def test_auto_waits_for_a_loss_that_is_finite():
    model = make_model()
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(), initial_scale='auto').setup(model)
    wrapped.update(lambda: loss_of(model, numpy.inf))
    assert wrapped.initial_scale == 'auto' and wrapped.skipped == 1
    wrapped.update(lambda: loss_of(model, 2.0**-4))
    assert wrapped.initial_scale == 1024.0  # Adaptive's bound
    assert wrapped.skipped == 1


def test_an_overflow_behind_the_first_layer_makes_the_next_passes_begin_lower():
    class Steep(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope(), chainer.using_config('dtype', chainer.mixed16):
                self.first = L.Linear(1, 1, initialW=1)
                self.second = L.Linear(1, 1, initialW=1)

        def forward(self, x):
            return F.sum(F.cast(self.second(self.first(x) * 2.0**6), 'f'))

    model = Steep()
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.0), policies.Fixed(1)).setup(model)
    scales = []
    for _ in range(12):
        wrapped.update(model, numpy.full((1, 1), 2.0**-6, 'e'))
        assert wrapped.recovery.backoff >= 0.5
        scales.append(wrapped.initial_scale)
    # All first gradients are 1. Times 2^6 they are finite from 2^9 on.
    assert scales == [2.0**11, 2.0**10, *[2.0**9] * 10]
    assert wrapped.skipped == 2


def test_after_200_passes_without_an_overflow_it_is_raised_up_to_the_margin():
    delayed = DelayedScale()
    loss = loss_of(make_model(), 2.0**-4)
    first = observe(loss, delayed).scale
    for _ in range(100):
        delayed = delayed.after(OVERFLOW)
    assert delayed.scale == first * 2.0**-10
    scales = [observe(loss, delayed).scale for _ in range(200 * 11)]
    assert scales == [first * 2.0**k for k in range(-10, 0) for _ in range(200)][1:] + [first] * 201


def test_a_loss_that_is_not_finite_does_not_lower_it():
    model = make_model()
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.0)).setup(model)
    for factor in (2.0, numpy.inf, numpy.inf, 2.0):
        with numpy.errstate(invalid='ignore'):
            wrapped.update(lambda factor=factor: loss_of(model, factor))
        assert wrapped.initial_scale == 2.0**7
    assert wrapped.skipped == 2


def test_it_is_the_default_and_in_snapshots(tmp_path):
    model = make_model()
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD()).setup(model)
    wrapped.update(lambda: loss_of(model, 2.0**-4))
    serializers.save_npz(tmp_path / 'optimizer.npz', wrapped)
    restored = chainerlp.AdaptiveLossScaling(optimizers.SGD()).setup(make_model())
    assert restored.initial_scale == 'auto'
    serializers.load_npz(tmp_path / 'optimizer.npz', restored)
    assert restored.initial_scale == wrapped.initial_scale == 1024.0


def test_a_snapshot_holds_by_how_much_it_was_lowered(tmp_path):
    loss = loss_of(make_model(), 2.0**-4)
    delayed, restored = observe(loss).after(OVERFLOW), DelayedScale()
    for _ in range(150):
        observe(loss, delayed)
    serializers.save_npz(tmp_path / 'scale.npz', delayed)
    serializers.load_npz(tmp_path / 'scale.npz', restored)
    assert restored.scale == delayed.scale
    for _ in range(60):
        assert observe(loss, restored).scale == observe(loss, delayed).scale


def test_a_snapshot_right_after_an_overflow_begins_lower(tmp_path):
    model = make_model()
    wrapped = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.0)).setup(model)
    wrapped.update(lambda: loss_of(model, 2.0))
    model.cleargrads()
    wrapped.backward(loss_of(model, 2.0))
    model.W.grad[...] = numpy.inf
    wrapped.update()
    serializers.save_npz(tmp_path / 'optimizer.npz', wrapped)
    restored = chainerlp.AdaptiveLossScaling(optimizers.SGD()).setup(make_model())
    serializers.load_npz(tmp_path / 'optimizer.npz', restored)
    assert restored.initial_scale == wrapped.initial_scale == 2.0**6


def test_a_fixed_scale_in_a_snapshot_is_where_it_begins(tmp_path):
    fixed, restored = (
        chainerlp.AdaptiveLossScaling(optimizers.SGD(), initial_scale=scale).setup(make_model())
        for scale in (64.0, 'auto')
    )
    serializers.save_npz(tmp_path / 'optimizer.npz', fixed)
    serializers.load_npz(tmp_path / 'optimizer.npz', restored)
    assert restored.initial_scale == 64.0
