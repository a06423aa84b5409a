"""What an iteration launches and takes of memory, which an emulated device alone can tell."""

import functools
import gc

import chainerlp
from chainerlp import geometry, gpu, policies
from chainerlp.scaled_array import ScaledArray, join
from experiments.benchmarks import measurement
from experiments.models.resnet import CIFARResNet
from experiments.models.small_models import MLP
from tests.gpu.agreement import NONFINITE

import chainer
import numpy
import pytest

pytestmark = pytest.mark.gpu


@pytest.fixture
def cuemu():
    """Returns the emulated device's counters."""
    return pytest.importorskip('cuemu', reason='only an emulated device counts launches')


def counted(cuemu, device, build, shape, policy):
    """Returns launches and peak memory in the steady state; of no policy, of Fixed(1)'s."""
    gc.collect()  # models are in cycles
    numpy.random.seed(0)
    with chainer.using_config('dtype', chainer.mixed16):
        model = chainer.links.Classifier(build())
        model(numpy.zeros((2, *shape), 'e'), numpy.zeros(2, 'i'))
    model.to_device(device)
    optimizer = chainer.optimizers.MomentumSGD(1e-3)
    if policy is None:
        chainerlp.convert(model, policies.Fixed(1))
        optimizer.use_fp32_update()
        optimizer.loss_scaling(scale=128.0)
    else:
        optimizer = chainerlp.AdaptiveLossScaling(optimizer, policy)
    optimizer.setup(model)
    random = numpy.random.RandomState(0)
    x = device.send(random.standard_normal((4, *shape)).astype('e'))
    t = device.send(numpy.zeros(4, 'i'))
    for _ in range(3):  # the first makes the optimizer's state
        optimizer.update(model, x, t)
    with cuemu.counting() as counts:
        peak = measurement.count(lambda: optimizer.update(model, x, t)).peak
    return counts['launches'], peak


def launches(*args):
    return counted(*args)[0]


MOST = {
    policies.Adaptive(): 0.95,
    policies.Adaptive(interval=100): 0.95,
    policies.PerSample(): 0.98,
    # These look at float32 weight gradients, which else cuBLAS rounds before it writes them.
    policies.Amax(): 1.01,
    policies.Measured(): 1.01,
    policies.Measured(interval=100): 1.01,
}
EACH = [*MOST, policies.AbsRange(), policies.ElementWiseRange(), policies.LogNormal()]


def test_scaling_launches_no_more_than_chainers_static_loss_scaling(device, cuemu):
    """What each layer adds is about what Chainer spends on a division for each parameter."""
    residual = (lambda: CIFARResNet(14, 10)), (3, 8, 8)
    fixed = launches(cuemu, device, *residual, None)
    shares = {p: launches(cuemu, device, *residual, p) / fixed for p in MOST}
    assert all(share <= MOST[policy] for policy, share in shares.items()), shares


@pytest.mark.parametrize('policy', [policies.Adaptive(), policies.Measured()], ids=repr)
def test_launches_grow_linearly_with_layers(device, cuemu, policy):
    def of_layers(count):
        return launches(cuemu, device, lambda: MLP(8, 8, 10, count), (8,), policy)

    few, more, many = map(of_layers, (10, 20, 100))
    # One launch more for each hundred or two of arrays: copies, true gradients, whether all are
    # finite.
    assert many - few <= 9 * (more - few) + 10


@pytest.mark.parametrize('policy', EACH, ids=repr)
def test_a_choice_is_one_launch(device, cuemu, policy):
    gy = device.send(numpy.full((4, 6, 5, 5), 2.0**-20, 'e'))
    W = device.send(numpy.ones((6, 3, 3, 3), 'e'))
    product = device.send(numpy.ones((4, 3, 5, 5), 'f'))
    given = device.send(numpy.array(4, 'f'))
    for _ in range(2):  # the first compiles
        with cuemu.counting() as counts:
            policy.scale_and_total(gy, W, given, terms=54, product=product)
    assert counts['launches'] == 1


def test_memory_is_that_of_chainers_static_loss_scaling(device, cuemu):
    """Neither the float32 gradients of 6 million parameters nor copies of them are held at once."""
    wide = (lambda: MLP(1000, 1000, 10, 6)), (1000,)
    fixed, adaptive, per_sample = (
        counted(cuemu, device, *wide, policy)[1]
        for policy in (None, policies.Adaptive(), policies.PerSample())
    )
    assert adaptive <= 1.02 * fixed, (adaptive, fixed)
    # To choose a scale of its own for a weight, one layer's gW is in float32.
    assert per_sample <= 1.05 * fixed, (per_sample, fixed)


def test_the_scale_of_a_compute_dtype_is_divided_out_in_no_launch_of_its_own(device, cuemu):
    link = chainer.links.Linear(8, 4)
    chainerlp.convert(link, policies.PerSample(), compute_dtype='float16')
    link.to_device(device)
    loss = chainer.functions.sum(link(device.send(numpy.ones((5, 8), 'f'))))
    with cuemu.counting() as counts:
        chainerlp.backward(loss)
    names = [kernel[0] for kernel in counts.kernels]
    assert 'chainerlp_round_to_half_saturating' in names
    assert not [name for name in names if 'divide' in name or 'scale_and_round' in name]


def test_a_join_takes_two_launches_also_of_some_channels(device, cuemu):
    x = device.send(numpy.ones((4, 6, 5, 5), 'e'))
    arrays = x[:, :2], x[:, 3:5], x[:, :2].copy()
    gradients = [ScaledArray(array, 2.0**k) for k, array in enumerate(arrays)]
    join(gradients)  # state is made
    with cuemu.counting() as counts:
        join(gradients)
    assert counts['launches'] == 2 and counts['memset'] == 0


@pytest.mark.parametrize('value', [2.0**-10, 0.0, *NONFINITE])
def test_the_state_of_kernels_is_left_zero(device, value):
    layer, shape = geometry.Convolution(pad=(1, 1)), (4, 6, 24, 24)
    gy, W = device.xp.full(shape, value, 'e'), device.xp.ones((6, 6, 3, 3), 'e')
    product = gy.astype('f')
    context = {'terms': 54, 'product': product, 'window': layer.window(shape, W.shape, shape[2:])}
    calls = [functools.partial(policy.scale, gy, W, **context) for policy in EACH]
    calls.append(functools.partial(policies.PerSample().scale, gy, W))
    calls.append(functools.partial(join, [ScaledArray(gy, 2.0), ScaledArray(gy, 4.0)]))
    for call in calls:
        call()
        state = [gpu.kept_zeros(use, 1) for use in ('done', 'amax', 'counts', 'range')]
        assert not any(words.any() for words in state)
