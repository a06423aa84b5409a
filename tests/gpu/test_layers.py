"""Every layer and function that the experiments use computes on a GPU what it does on the CPU."""

from tests.gpu.agreement import CPU, UNIT, Case, assert_agrees

import chainer
import chainer.functions as F
import numpy
import pytest

pytestmark = pytest.mark.gpu

IMAGES = (2, 3, 7, 8)
BIAS = (5,)
FLAGS = numpy.random.RandomState(2).rand(4, 6) < 0.5
GAMMA, BETA = numpy.linspace(0.5, 2, 3).astype('f'), numpy.linspace(-1, 1, 3).astype('f')
MEAN, VARIANCE = numpy.linspace(-1, 1, 3).astype('f'), numpy.linspace(0.5, 2, 3).astype('f')


def unpooled(x):
    y, indices = F.max_pooling_2d(x, 2, return_indices=True)
    return F.upsampling_2d(y, indices, 2, outsize=x.shape[2:])


# A 3×3 window adds up 9 numbers in the type of the array when it is laid over an image
# (`col2im`, or the sum of a pooling window); then come the product itself, a bias, a quotient.
WINDOW = 9 + 3

CASES = {
    # Products, added up in float32, rounded once, and a bias.
    'linear': Case(F.linear, ((8, 64), (5, 64), BIAS), 2, 64, linear=True),
    'matmul': Case(F.matmul, ((4, 33), (33, 5)), 1, 33, linear=True),
    'batched matmul': Case(F.matmul, ((2, 4, 9), (2, 9, 5)), 1, 9, linear=True),
    'convolution': Case(
        lambda x, W, b: F.convolution_2d(x, W, b, pad=1),
        (IMAGES, (5, 3, 3, 3), BIAS), WINDOW, 112, linear=True),
    'convolution of stride 2': Case(
        lambda x, W: F.convolution_2d(x, W, stride=2, pad=1),
        (IMAGES, (5, 3, 3, 3)), WINDOW, 112, linear=True),
    'dilated convolution': Case(
        lambda x, W, b: F.convolution_2d(x, W, b, pad=2, dilate=2),
        (IMAGES, (5, 3, 3, 3), BIAS), WINDOW, 112, linear=True),
    'convolution in groups': Case(
        lambda x, W: F.convolution_2d(x, W, pad=1, groups=3),
        (IMAGES, (6, 1, 3, 3)), WINDOW, 112, linear=True),
    '1×1 convolution': Case(
        F.convolution_2d, (IMAGES, (5, 3, 1, 1)), 2, 112, linear=True),
    'deconvolution': Case(
        lambda x, W, b: F.deconvolution_2d(x, W, b, stride=2, pad=1),
        (IMAGES, (3, 5, 3, 3), BIAS), WINDOW, 400, linear=True),
    'bilinear scale': Case(
        lambda x, s: F.scale(x, s, 1), (IMAGES, (3,)), 2, 112, linear=True),
    # Choices: a number is taken or not. Where windows overlap, gradients are added up.
    'relu': Case(F.relu, (IMAGES,), 0),
    'leaky relu': Case(lambda x: F.leaky_relu(x, 0.25), (IMAGES,), 1),
    'clipped relu': Case(lambda x: F.clipped_relu(x, 0.5), (IMAGES,), 0),
    'clip': Case(lambda x: F.clip(x, -0.5, 0.25), (IMAGES,), 0),
    'max pooling': Case(lambda x: F.max_pooling_2d(x, 2), (IMAGES,), 0),
    'max pooling without cover': Case(
        lambda x: F.max_pooling_2d(x, 2, cover_all=False), (IMAGES,), 0),
    'max pooling with overlap': Case(
        lambda x: F.max_pooling_2d(x, 3, stride=1, pad=1), (IMAGES,), 9),
    'max pooling and upsampling': Case(unpooled, (IMAGES,), 0),
    'unpooling': Case(lambda x: F.unpooling_2d(x, 2), (IMAGES,), 4, linear=True),
    'average pooling': Case(
        lambda x: F.average_pooling_2d(x, 3, stride=2, pad=1), (IMAGES,), WINDOW, linear=True),
    'global average pooling': Case(
        lambda x: F.mean(x, axis=(2, 3)), (IMAGES,), 3, 56, linear=True),
    # Arrays taken apart and put together.
    'concat': Case(lambda x, y: F.concat([x, y]), ((2, 3, 4), (2, 5, 4)), 0),
    'stack': Case(lambda x, y: F.stack([x, y], 1), ((2, 3), (2, 3)), 0),
    'split': Case(lambda x: tuple(F.split_axis(x, 3, 1)), ((2, 6),), 0),
    'reshape': Case(lambda x: F.reshape(x, (6, 4)), ((2, 3, 4),), 0),
    'transpose': Case(lambda x: F.transpose(x, (0, 2, 3, 1)), (IMAGES,), 0),
    'pad': Case(lambda x: F.pad(x, ((0, 0), (1, 2)), 'constant'), ((3, 4),), 0),
    'where': Case(lambda x, y: F.where(FLAGS if isinstance(x.array, numpy.ndarray)
                                       else x.xp.asarray(FLAGS), x, y), ((4, 6), (4, 6)), 0),
    'broadcast': Case(lambda x: F.broadcast_to(x, (4, 3, 5)), ((3, 1),), 1, 20, linear=True),
    # Sums, in float32 or wider, and arithmetic.
    'sum': Case(F.sum, ((50, 40),), 1, 2000, linear=True),
    'mean': Case(F.mean, ((50, 40),), 2, 2000, linear=True),
    'residual': Case(lambda x, y: x + y, (IMAGES, IMAGES), 1, linear=True),
    'product': Case(lambda x, y: x * y, (IMAGES, IMAGES), 1, linear=True),
    'square root': Case(lambda x: F.sqrt(abs(x) + 1), (IMAGES,), 6),
    # Exponentials: the exponent, of up to 8 here, is rounded to u, and that many times counts.
    'sigmoid': Case(F.sigmoid, (IMAGES,), 8),
    'tanh': Case(F.tanh, (IMAGES,), 8),
    'elu': Case(F.elu, (IMAGES,), 8),
    'softplus': Case(F.softplus, (IMAGES,), 8),
    'softmax': Case(F.softmax, ((8, 10),), 16),
    'log softmax': Case(F.log_softmax, ((8, 10),), 16, 10),
    # Normalizations: the statistics, the difference to them, the quotient, the affine map.
    'batch normalization': Case(
        lambda x, g, b: F.batch_normalization(x, g, b), (IMAGES, GAMMA, BETA), 16, 112),
    'fixed batch normalization': Case(
        lambda x, g, b, m, v: F.fixed_batch_normalization(x, g, b, m, v),
        (IMAGES, GAMMA, BETA, MEAN, VARIANCE), 16, 112),
    'layer normalization': Case(
        lambda x, g, b: F.layer_normalization(x, g, b), ((4, 6), (6,), (6,)), 24, 6),
    'normalize': Case(F.normalize, ((4, 6, 3, 3),), 16, 6),
    'local response normalization': Case(F.local_response_normalization, ((2, 9, 4, 4),), 24),
    # Losses.
    'huber loss': Case(
        lambda x, t: F.huber_loss(x, t, 1.0, reduce='no'), ((6, 4), (6, 4)), 8),
    'smooth L1': Case(lambda x, t: F.huber_loss(x, t, 1.0), ((6, 4), (6, 4)), 8, 4),
    'mean squared error': Case(F.mean_squared_error, ((6, 4), (6, 4)), 6, 24),
}  # fmt: skip


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_values_and_gradients_are_those_of_the_cpu(device, case, dtype):
    assert_agrees(case, dtype, device)


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_accuracy_counts_what_is_right(device, dtype):
    y = numpy.random.RandomState(0).permutation(400).reshape(40, 10).astype(dtype)
    t = y.argmax(1).astype('i')
    t[:10] = (t[:10] + 1) % 10
    t[10:20] = -1
    accuracy = F.accuracy(device.send(y), device.send(t), ignore_label=-1)
    assert float(accuracy.array) == numpy.dtype(dtype).type(2 / 3)


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
@pytest.mark.parametrize('source', ['float16', 'float32'])
def test_a_cast_rounds_once(device, source, dtype):
    x = numpy.random.RandomState(0).standard_normal(1000).astype(source)
    x[:4] = [2.0**-24, 2.0**-25, 65504, 1 + 2.0**-11]  # fp16's ends, and ties
    y = CPU.send(F.cast(device.send(x), dtype).array)
    numpy.testing.assert_array_equal(y, x.astype(dtype), strict=True)


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_dropout_drops_a_share_and_scales_the_rest(device, dtype):
    x = chainer.Variable(device.send(numpy.full((500, 200), 3, dtype)))
    device.xp.random.seed(0)
    with chainer.using_config('train', True):
        y = F.dropout(x, 0.25)
    y.grad = device.xp.ones_like(y.array)
    y.backward()
    value, gradient = CPU.send(y.array), CPU.send(x.grad)
    kept = value != 0
    # 100,000 draws of a chance of 3/4: five standard deviations are 0.007.
    assert abs(kept.mean() - 0.75) < 0.007
    assert value.dtype == gradient.dtype == dtype
    numpy.testing.assert_allclose(value[kept], 4, rtol=3 * UNIT[dtype])
    numpy.testing.assert_allclose(gradient, numpy.where(kept, 4 / 3, 0), rtol=3 * UNIT[dtype])
    device.xp.random.seed(0)
    numpy.testing.assert_array_equal(CPU.send(F.dropout(x, 0.25).array), value)
