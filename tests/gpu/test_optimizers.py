"""Twenty steps of an optimizer on a GPU, from given gradients, against the CPU in float64."""

import chainerlp
from tests.gpu.agreement import CPU, UNIT

import chainer
import chainer.functions as F
import numpy
import pytest
from chainer import optimizers

pytestmark = pytest.mark.gpu

STEPS = 20
OPTIMIZERS = {
    'SGD': lambda: optimizers.SGD(2.0**-5),
    'MomentumSGD': lambda: optimizers.MomentumSGD(2.0**-5),
    'Adam': lambda: optimizers.Adam(2.0**-6),
    'AdamW': lambda: optimizers.AdamW(2.0**-6, weight_decay_rate=2.0**-6),
    'RMSprop': lambda: optimizers.RMSprop(2.0**-6, eps=2.0**-10),
}


class Weights(chainer.Link):
    def __init__(self, dtype, device=CPU):
        super().__init__()
        with self.init_scope():
            initial = numpy.random.RandomState(0).uniform(1, 2, 1000).astype('e')
            self.W = chainer.Parameter(initial.astype(dtype))
        self.to_device(device)


def trained(model, optimizer, scale=1.0):
    """Updates with fp16 gradients that are the same for all, times a scale."""
    random = numpy.random.RandomState(1)
    optimizer.setup(model)
    for _ in range(STEPS):
        gradient = random.uniform(0.25, 1, 1000).astype('e') * numpy.float16(scale)
        model.W.grad = model.device.send(gradient.astype(model.W.dtype))
        optimizer.update()
    return CPU.send(model.W.array)


@pytest.mark.parametrize('make', OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize(
    'dtype, update, scale', [('e', 'f', 1.0), ('e', 'f', 64.0), ('e', 'e', 1.0), ('f', 'f', 1.0)]
)
def test_weights_are_those_of_the_cpu(device, make, dtype, update, scale):
    expected = trained(Weights('d'), make())
    optimizer, model = make(), Weights(dtype, device)
    if update != dtype:
        optimizer.use_fp32_update()
    model.W._loss_scale = scale if scale != 1 else None
    actual = trained(model, optimizer, scale)
    assert actual.dtype == dtype
    # Each step rounds the weight, of at most 2.25, and a change that is far smaller; with float32
    # updates, only the last one rounds to fp16, and states are float32's.
    unit = UNIT[str(numpy.dtype(update))]
    bound = 2.5 * (2 * STEPS * unit + (UNIT['float16'] if dtype == 'e' else 0))
    assert abs(expected - Weights('d').W.array).max() > 2.0**-3  # it has moved
    numpy.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


@pytest.mark.parametrize('make', OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_types_and_states_stay_what_they_are(device, make):
    for dtype, fp32 in [('e', False), ('e', True), ('f', False)]:
        optimizer, model = make(), Weights(dtype, device)
        if fp32:
            optimizer.use_fp32_update()
        trained(model, optimizer)
        rule = model.W.update_rule
        arrays = [v for v in rule.state.values() if isinstance(v, device.supported_array_types)]
        for array in arrays:
            assert array.dtype == 'f' if fp32 or dtype == 'f' else array.dtype in ('e', 'f')
        assert model.W.dtype == dtype


@pytest.mark.filterwarnings('ignore:overflow encountered:RuntimeWarning')  # NumPy's
def test_overflowing_gradients_are_infinite_and_skip_the_update(device):
    model = Weights('e', device)
    before = CPU.send(model.W.array).copy()
    optimizer = optimizers.SGD(2.0**-20).setup(model)
    optimizer.use_fp32_update()
    optimizer.loss_scaling(interval=2)
    optimizer._loss_scale = 4.0
    slopes = device.send(numpy.full(1000, 2.0**14, 'e'))

    def loss():
        # Its gradient is 2^14.
        return F.sum(F.cast(model.W * slopes, 'f'))

    with pytest.warns(UserWarning, match='Non finite number found in param.grad of /W'):
        optimizer.update(loss)  # 2^14 · 4 = 65536: it is inf
    assert not numpy.isfinite(CPU.send(model.W.grad)).any()
    numpy.testing.assert_array_equal(CPU.send(model.W.array), before)
    assert optimizer._loss_scale == 2.0
    optimizer.update(loss)
    numpy.testing.assert_allclose(
        CPU.send(model.W.array), before.astype('d') - 2.0**-6, rtol=UNIT['float16']
    )


def test_a_static_scale_is_divided_out(device):
    results = []
    for scale in (1.0, 1024.0):
        model = Weights('e', device)
        optimizer = optimizers.MomentumSGD(2.0**-5).setup(model)
        optimizer.use_fp32_update()
        optimizer.loss_scaling(scale=scale)
        for _ in range(STEPS):
            optimizer.update(lambda model=model: F.mean(model.W * model.W))
        results.append(CPU.send(model.W.array))
    # Gradients of 2^-9 and 2: powers of two apart, so rounded alike.
    numpy.testing.assert_allclose(*results, rtol=2 * UNIT['float16'])


def test_a_wrapped_optimizer_trains_a_float32_model_as_without_it(device):
    results = []
    for wrap in (lambda optimizer: optimizer, chainerlp.AdaptiveLossScaling):
        model = Weights('f', device)
        optimizer = wrap(optimizers.MomentumSGD(2.0**-5)).setup(model)
        for _ in range(STEPS):
            optimizer.update(lambda model=model: F.mean(model.W * model.W))
        results.append(CPU.send(model.W.array))
    numpy.testing.assert_array_equal(*results)
