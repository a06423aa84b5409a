"""The blocks of the residual networks against their definition, from convolutions and ReLU."""

import math

from experiments.models.resnet_blocks import (
    BasicBlock,
    Bottleneck,
    IdentityShortcut,
    PreActivationBottleneck,
    projection_shortcut,
)

import chainer
import chainer.functions as F
import numpy
import pytest

# Batch normalization before any training, in evaluation: mean 0, variance 1, and Chainer's eps.
SHRINK = 1 / math.sqrt(1 + 2e-5)
# Sums of up to 144 products in float32, each rounded by 2^-24: 144 · 2^-24 = 8.6e-6.
CLOSE = {'rtol': 1e-5, 'atol': 1e-5}


def features(channels, size=6):
    numpy.random.seed(0)  # of the weights, too
    x = numpy.random.RandomState(1).standard_normal((3, channels, size, size))
    return x.astype(numpy.float32)


def evaluated(block, x):
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        return block(x).array


def conv(x, W, stride=1):
    with chainer.no_backprop_mode():
        return F.convolution_2d(x, W, stride=stride, pad=W.shape[2] // 2).array


def conv_bn(x, link, stride=1):
    return conv(x, link.conv.W, stride) * SHRINK


def relu(x):
    return numpy.maximum(x, 0)


@pytest.mark.parametrize('stride, size', [(1, 5), (2, 5), (2, 6)])
def test_the_identity_shortcut_takes_every_stride_th_pixel_and_adds_channels_of_zeros(stride, size):
    x = features(4, size)
    y = IdentityShortcut(4, 10, stride)(x).array
    numpy.testing.assert_array_equal(y[:, :4], x[:, :, ::stride, ::stride])
    assert y.shape[1] == 10 and not y[:, 4:].any()


def test_the_identity_shortcut_has_no_parameters_and_changes_nothing_where_the_shape_stays():
    shortcut = IdentityShortcut(4, 4, 1)
    assert shortcut.count_params() == 0
    numpy.testing.assert_array_equal(shortcut(features(4)), features(4))


def test_a_projection_has_weights_only_where_the_shape_changes():
    assert projection_shortcut(8, 8, 1).count_params() == 0
    assert projection_shortcut(8, 8, 2).count_params() == 8 * 8 + 2 * 8
    assert projection_shortcut(8, 16, 1).count_params() == 8 * 16 + 2 * 16


def test_a_basic_block_that_keeps_the_shape():
    x = features(8)
    block = BasicBlock(8, 8, 1)
    h = conv_bn(relu(conv_bn(x, block.conv1)), block.conv2)
    numpy.testing.assert_allclose(evaluated(block, x), relu(h + x), **CLOSE)


def test_a_basic_block_that_halves_the_image():
    x = features(8)
    block = BasicBlock(8, 16, 2)
    h = conv_bn(relu(conv_bn(x, block.conv1, stride=2)), block.conv2)
    y = relu(h + conv_bn(x, block.shortcut, stride=2))
    assert y.shape == (3, 16, 3, 3)
    numpy.testing.assert_allclose(evaluated(block, x), y, **CLOSE)


@pytest.mark.parametrize('stride_in_3x3', [False, True])
def test_a_bottleneck_that_halves_the_image_does_so_where_it_is_told_to(stride_in_3x3):
    x = features(8)
    block = Bottleneck(8, 16, 2, stride_in_3x3=stride_in_3x3)
    first, second = (1, 2) if stride_in_3x3 else (2, 1)
    h = relu(conv_bn(x, block.conv1, first))
    assert h.shape[1] == 4
    h = conv_bn(relu(conv_bn(h, block.conv2, second)), block.conv3)
    y = relu(h + conv_bn(x, block.shortcut, stride=2))
    assert y.shape == (3, 16, 3, 3)
    numpy.testing.assert_allclose(evaluated(block, x), y, **CLOSE)


def test_a_block_with_preactivation_has_nothing_after_the_sum():
    x = features(16)
    block = PreActivationBottleneck(16, 16, 1)
    h = relu(conv_bn(relu(x * SHRINK), block.conv1))
    h = conv(relu(conv_bn(h, block.conv2)), block.conv3.W)
    numpy.testing.assert_allclose(evaluated(block, x), h + x, **CLOSE)
    block.conv3.W.array[...] = 0
    numpy.testing.assert_array_equal(block(x).array, x)


def test_a_block_with_preactivation_that_changes_the_shape_projects_its_first_activation():
    x = features(8)
    block = PreActivationBottleneck(8, 16, 2)
    activation = relu(x * SHRINK)
    h = relu(conv_bn(activation, block.conv1, stride=2))
    h = conv(relu(conv_bn(h, block.conv2)), block.conv3.W)
    y = h + conv(activation, block.shortcut.W, stride=2)
    assert y.shape == (3, 16, 3, 3)
    numpy.testing.assert_allclose(evaluated(block, x), y, **CLOSE)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('kind', [BasicBlock, Bottleneck])
def test_with_its_last_gamma_at_zero_a_block_starts_as_its_shortcut(kind, stride):
    x = features(16)
    block = kind(16, 16 * stride, stride, zero_init_residual=True)
    shortcut = x if stride == 1 else block.shortcut(x).array
    numpy.testing.assert_array_equal(block(x).array, relu(shortcut))
    assert (kind(16, 16 * stride, stride)(x).array != relu(shortcut)).any()


def test_the_weights_keep_the_variance_of_what_relu_leaves():
    block = Bottleneck(64, 256, 1)
    # He et al.: the variance is 2 / fan_in. Of 9 · 64 · 64 normal numbers its estimate is off by
    # 0.7 % (one standard deviation), of 64 · 256 by 1.1 %.
    assert numpy.var(block.conv2.conv.W.array) == pytest.approx(2 / (9 * 64), rel=0.04)
    assert numpy.var(block.conv3.conv.W.array) == pytest.approx(2 / 64, rel=0.06)
