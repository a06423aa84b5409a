"""Scaling on a GPU: the scales, gradients and curves of the CPU, and no waiting for the device."""

import chainerlp
from chainerlp import policies
from chainerlp.initial_scale import DelayedScale
from chainerlp.scaled_array import ScaledArray
from experiments.benchmarks import measurement
from tests.gpu.agreement import CPU, UNIT

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import serializers

pytestmark = pytest.mark.gpu

NO_BOUND = float('inf')
POLICIES = {
    'adaptive': policies.Adaptive(max_scale=NO_BOUND, max_total_scale=NO_BOUND),
    'adaptive, the default bounds': policies.Adaptive(),
    'adaptive, no power of two': policies.Adaptive(max_scale=NO_BOUND, power_of_two=False),
    'abs range': policies.AbsRange(),
    'element-wise range': policies.ElementWiseRange(),
    'log-normal': policies.LogNormal(max_scale=NO_BOUND, max_total_scale=NO_BOUND),
    'per sample': policies.PerSample(),
    'amax': policies.Amax(),
    'measured': policies.Measured(),
    'fixed': policies.Fixed(8),
}


@pytest.mark.parametrize('policy', POLICIES.values(), ids=list(POLICIES))
@pytest.mark.parametrize('exponent', [-24, -16, -8, 0, 8])
def test_the_same_scales_for_the_same_arrays(device, policy, exponent):
    random = numpy.random.RandomState(exponent + 30)
    gy = (random.standard_normal((64, 48)) * 2.0**exponent).astype('e')
    W = random.standard_normal((48, 32)).astype('e')
    for total_scale in (1.0, 64.0):
        expected = policy.scale(gy, W, total_scale)
        found = policy.scale(device.send(gy), device.send(W), total_scale)
        # Second moments are sums in float32 on one side, in float64 on the other: 1e-5 apart. Where
        # that crosses a power of two, what is rounded down to one is half or double.
        ratio = float(found) / expected
        close = abs(ratio - 1) <= 1e-5
        assert close or (getattr(policy, 'power_of_two', False) and ratio in (0.5, 2)), ratio


LAYERS = {
    'linear': (lambda: L.Linear(24, 16), (8, 24)),
    'convolution': (lambda: L.Convolution2D(8, 12, 3, 2, 1), (4, 8, 9, 9)),
    'grouped': (lambda: L.Convolution2D(8, 12, 3, pad=1, groups=4), (4, 8, 9, 9)),
    'dilated': (lambda: L.Convolution2D(8, 12, 3, pad=2, dilate=2), (4, 8, 9, 9)),
    'depthwise': (lambda: L.DepthwiseConvolution2D(8, 2, 3), (4, 8, 9, 9)),
    'deconvolution': (lambda: L.Deconvolution2D(8, 12, 4, 2, 1), (4, 8, 5, 5)),
    'one dimension': (lambda: L.Convolution1D(8, 12, 3), (4, 8, 9)),
    'three dimensions': (lambda: L.Convolution3D(4, 6, 3), (2, 4, 5, 5, 5)),
    'local': (lambda: L.LocalConvolution2D(4, 6, in_size=5, ksize=3), (4, 4, 5, 5)),
}


def gradients_of(link, x, gy, device):
    link.to_device(device)
    link.cleargrads()
    x = chainer.Variable(device.send(x))
    y = link(x)
    y.grad = device.send(gy)
    chainerlp.backward(y)
    x_grad = CPU.send(x.grad).astype('d')
    of_params = {name: CPU.send(chainerlp.unscaled_grad(p)) for name, p in link.namedparams()}
    function = y.creator
    scales = float(function.scale), float(function.total_scale)
    return CPU.send(y.array), {'x': x_grad, **of_params}, scales


@pytest.mark.parametrize('name', sorted(LAYERS))
def test_every_layer_gives_the_gradients_of_the_cpu(device, name):
    build, shape = LAYERS[name]
    numpy.random.seed(0)
    with chainer.using_config('dtype', chainer.mixed16):
        link = build()
        link(numpy.zeros(shape, 'e'))  # some parameters get their sizes from it
        chainerlp.convert(link, policies.Amax())
    random = numpy.random.RandomState(1)
    x = random.standard_normal(shape).astype('e')
    gy = (random.standard_normal(link(x).shape) * 2.0**-20).astype('e')
    y, gradients, scales = gradients_of(link, x, gy, CPU)
    y_found, found, scales_found = gradients_of(link, x, gy, device)
    # Each is a float32 sum, rounded to float16 once: 2^-11 of the number apart on either side, and
    # what cancels in a sum leaves 2^-24 of the largest, which is far less.
    # A largest element next to a power of two may fall to its other side.
    assert scales_found[0] / scales[0] in (0.5, 1, 2) and scales[0] > 1
    gradients['y'], found['y'] = y.astype('d'), y_found.astype('d')
    for key, expected in gradients.items():
        largest = numpy.abs(expected).max()
        error = numpy.abs(found[key] - expected).max()
        assert error <= 2 * UNIT['float16'] * largest, f'{key}: {error} of {largest}'


@pytest.mark.parametrize('name', sorted(LAYERS))
def test_float32_layers_compute_in_halves_as_on_the_cpu(device, name):
    build, shape = LAYERS[name]
    numpy.random.seed(0)
    link = build()
    link(numpy.zeros(shape, 'f'))
    random = numpy.random.RandomState(1)
    x = random.standard_normal(shape).astype('f')
    x.flat[0] = 1e5
    gy = (random.standard_normal(link(x).shape) * 2.0**-40).astype('f')
    chainerlp.convert(link, policies.Amax(), compute_dtype='float16')
    y, gradients, scales = gradients_of(link, x, gy, CPU)
    parts = [part for part in link.links() if hasattr(part, 'layer_scale')]
    saturated = [int(part.layer_scale.saturated) for part in parts]
    assert sum(saturated) >= 1
    for part in parts:
        part.layer_scale = part.layer_scale.anew()
    y_found, found, scales_found = gradients_of(link, x, gy, device)
    assert scales_found == scales
    assert [int(part.layer_scale.saturated) for part in parts] == saturated
    # The same halves are multiplied: sums in float32 of up to 1000 products differ by 1000 * 2^-24.
    gradients['y'], found['y'] = y.astype('d'), y_found.astype('d')
    for key, expected in gradients.items():
        largest = numpy.abs(expected).max()
        assert numpy.abs(found[key] - expected).max() <= 1000 * UNIT['float32'] * largest, key


class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope(), chainer.using_config('dtype', chainer.mixed16):
            self.conv1 = L.Convolution2D(3, 8, 3, pad=1)
            self.norm = L.BatchNormalization(8)
            self.conv2 = L.Convolution2D(8, 8, 3, pad=1)
            self.fc = L.Linear(8 * 4 * 4, 10)

    def forward(self, x, t):
        h = F.max_pooling_2d(F.relu(self.norm(self.conv1(x))), 2)
        h = h + F.relu(self.conv2(h))
        return F.softmax_cross_entropy(F.cast(self.fc(h), 'float32'), t)


def batch(seed):
    random = numpy.random.RandomState(seed)
    return random.standard_normal((32, 3, 8, 8)).astype('e'), random.randint(0, 10, 32).astype('i')


def wrap(device, policy=None, **kwargs):
    numpy.random.seed(0)
    model = Net()
    model.to_device(device)
    optimizer = chainerlp.AdaptiveLossScaling(
        chainer.optimizers.MomentumSGD(0.02), policy, **kwargs
    )
    return optimizer.setup(model)


def train(device, iterations, policy=None):
    wrapped = wrap(device, policy)
    losses = []
    for iteration in range(iterations):
        x, t = (device.send(array) for array in batch(iteration % 4))
        losses.append(wrapped.target(x, t).array)
        wrapped.update(wrapped.target, x, t)
    return [float(loss) for loss in losses], wrapped


@pytest.mark.parametrize('policy', [policies.Adaptive(), policies.Amax(interval=10)])
def test_the_training_curve_of_the_cpu(device, policy):
    expected, of_cpu = train(CPU, 100, policy)
    found, of_device = train(device, 100, policy)
    assert of_device.skipped == of_cpu.skipped == 0
    # Two runs whose sums are rounded differently drift apart; over 100 iterations, in which the
    # loss falls by more than half, by less than 5 % of where it began.
    assert expected[-1] < expected[0] / 2
    numpy.testing.assert_allclose(found, expected, atol=0.05 * expected[0])
    numpy.testing.assert_allclose(found[:5], expected[:5], rtol=0.01)


def test_an_overflow_is_skipped_and_recovered_from(device):
    wrapped = wrap(device)
    for iteration in range(3):
        wrapped.update(wrapped.target, *(device.send(a) for a in batch(iteration)))
    before = [CPU.send(param.array).copy() for param in wrapped.target.params()]
    x, t = (device.send(array) for array in batch(3))
    x[0, 0, 0, 0] = numpy.inf
    with numpy.errstate(all='ignore'):
        wrapped.update(wrapped.target, x, t)
    assert wrapped.skipped == 1
    for param, array in zip(wrapped.target.params(), before):
        numpy.testing.assert_array_equal(CPU.send(param.array), array)
    wrapped.update(wrapped.target, *(device.send(a) for a in batch(4)))
    assert wrapped.skipped == 1
    assert all(numpy.isfinite(CPU.send(p.array)).all() for p in wrapped.target.params())


@pytest.mark.parametrize(
    'policy',
    [
        policies.Adaptive(),
        policies.Adaptive(interval=10),
        policies.PerSample(),
        policies.Amax(),
        policies.Measured(),
    ],
)
def test_scaling_lets_the_host_wait_no_more_than_static_loss_scaling(device, policy):
    def waits(optimizer):
        arguments = [device.send(array) for array in batch(0)]
        for _ in range(3):  # the first makes the optimizer's state
            optimizer.update(optimizer.target, *arguments)
        measurement.wait_for(device)
        model = optimizer.target
        return measurement.host_waits(device, lambda: optimizer.update(model, *arguments))

    static = chainer.optimizers.MomentumSGD(0.02)
    static.use_fp32_update()
    numpy.random.seed(0)
    model = Net()
    chainerlp.convert(model, policies.Fixed(1))
    model.to_device(device)
    static.setup(model)
    static.loss_scaling(scale=128.0)
    assert waits(wrap(device, policy)) == waits(static)


def test_what_scale_report_measures_is_what_the_cpu_measures(device, tmp_path):
    def report(where, folder):
        wrapped = wrap(where, policies.Amax())
        data = chainer.datasets.TupleDataset(*batch(0))
        iterator = chainer.iterators.SerialIterator(data, 32, shuffle=False)
        updater = chainer.training.updaters.StandardUpdater(iterator, wrapped, device=where)
        trainer = chainer.training.Trainer(updater, (1, 'iteration'), str(folder))
        trainer.extend(chainerlp.extensions.ScaleReport(trigger=(1, 'iteration'), histogram=True))
        trainer.run()
        lines = (folder / 'scales.csv').read_text().splitlines()[1:]
        return [line.split(',') for line in lines]

    on_cpu, found = report(CPU, tmp_path / 'cpu'), report(device, tmp_path / 'device')
    assert [row[:5] for row in found] == [row[:5] for row in on_cpu]  # layers and their scales
    for row, expected in zip(found, on_cpu):
        # Shares of elements: some of those at the threshold may fall to the other side.
        numpy.testing.assert_allclose(
            [float(v) for v in row[5:8]], [float(v) for v in expected[5:8]], atol=0.005
        )
        assert abs(float(row[8]) / float(expected[8]) - 1) < 0.01


@pytest.mark.parametrize('ignore', [None, 3])
def test_what_is_made_in_float32_is_the_cpus(device, ignore):
    ids = numpy.random.RandomState(0).randint(0, 8, (50, 20)).astype('i')
    gy = numpy.random.RandomState(1).standard_normal((1000, 16)).astype('e') * numpy.float16(100)
    found = []
    for where in (device, CPU):
        numpy.random.seed(0)
        with chainer.using_config('dtype', numpy.dtype('e')):
            small = chainer.initializers.Normal(0.02)
            model = chainer.Sequential(
                L.EmbedID(8, 16, initialW=small, ignore_label=ignore),
                lambda h: h.reshape(-1, 16),
                L.LayerNormalization(16),
            )
        model.to_device(where)
        model.cleargrads()
        y = model(where.send(ids))
        y.grad = where.send(gy)
        chainerlp.backward(y)
        found.append([CPU.send(p.grad) for _, p in sorted(model.namedparams())])
    for actual, expected in zip(*found):
        assert actual.dtype == expected.dtype == 'float32'
        bound = 2.0**-9 * numpy.abs(expected).max()
        assert numpy.abs(actual - expected).max() <= bound


@pytest.mark.parametrize('nothing', [0.0, numpy.inf, numpy.nan])
def test_an_initial_scale_is_unknown_until_a_pass_says_something(device, nothing, tmp_path):
    def observe(delayed, value):
        gradient = ScaledArray(device.send(numpy.full(3, value, 'e')), 2.0)
        return delayed.observe([gradient], numpy.dtype('f'))

    def saved(delayed):
        serializers.save_npz(tmp_path / 'scale.npz', delayed)
        return float(numpy.load(tmp_path / 'scale.npz')['initial_scale'])

    delayed = DelayedScale()
    observe(delayed, nothing)
    assert (delayed.is_known, float(delayed.scale), saved(delayed)) == (False, 1.0, 0.0)
    for value, expected in ((2.0**-4, 2.0**16), (nothing, 2.0**16)):
        observe(delayed, value)
        assert (delayed.is_known, float(delayed.scale), saved(delayed)) == (True, *[expected] * 2)
    observe(delayed, 2.0**-4)
    delayed = delayed.after([(True, True)])
    assert (delayed.scale.dtype, float(delayed.scale)) == ('f', 2.0**15)
    observe(delayed, 2.0**-4)
    assert float(delayed.scale) == 2.0**15
