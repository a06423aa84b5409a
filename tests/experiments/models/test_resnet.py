"""Residual networks, and their blocks against the definition, from convolutions and ReLU."""

import math

from experiments.models.blocks import Blocks
from experiments.models.resnet import (
    BasicBlock,
    Bottleneck,
    CIFARResNet,
    IdentityShortcut,
    ImageNetResNet,
    PreActivationBottleneck,
    PreActivationResNet,
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


@pytest.mark.parametrize(
    'depth, paper, count', [(20, 0.27, 269_722), (56, 0.85, 853_018), (110, 1.7, 1_727_962)]
)
def test_a_resnet_has_the_parameters_of_the_paper(depth, paper, count):
    # By hand, with n blocks a stage. Convolutions: 3·16·9 = 432 first; 2n of 16·16·9 = 2,304; one
    # of 16·32·9 = 4,608 and 2n - 1 of 9,216; one of 32·64·9 = 18,432 and 2n - 1 of 36,864. Gamma
    # and beta a channel, after the first and after 2n of each width. Classifier: 64·10 + 10.
    # n = 3: 432 + 13,824 + 50,688 + 202,752 + 1,376 + 650 = 269,722.
    n = (depth - 2) // 6
    convolutions = 432 + 2 * n * 2304 + 4608 + 18432 + (2 * n - 1) * (9216 + 36864)
    assert convolutions + 2 * (16 + 2 * n * (16 + 32 + 64)) + 650 == count
    assert CIFARResNet(depth, 10).count_params() == count
    # In millions, to the two figures that the paper (table 6) prints.
    assert float(f'{count / 1e6:.2g}') == paper


@pytest.mark.parametrize('depth, count', [(20, 272_762), (56, 856_058), (110, 1_731_002)])
def test_the_variant_of_the_paper_on_loss_scaling_has_the_parameters_of_its_code(depth, count):
    # Three 1x1 convolutions more, and a gamma and a beta: 16·16 + 32, 16·32 + 64, 32·64 + 128.
    assert CIFARResNet(depth, 10, variant='zhao').count_params() == count
    assert count == CIFARResNet(depth, 10).count_params() + 288 + 576 + 2176


def test_the_variant_has_its_strides_in_the_second_convolution_and_weights_by_fan_out():
    model = CIFARResNet(20, 10, variant='zhao')
    assert halving_strides(model) == {((1, 1), (1, 1)), ((1, 1), (2, 2))}
    conv = model.stage3['block1'].conv1.conv
    # Of 32·64·9 normal numbers the variance is off by 1 % (one deviation).
    assert numpy.var(conv.W.array) == pytest.approx(2 / (9 * 64), rel=0.04)
    x = features(32, 8)
    first = model.stage3['block1']
    h = conv_bn(relu(conv_bn(x, first.conv1)), first.conv2, stride=2)
    y = relu(h + conv_bn(x, first.shortcut, stride=2))
    # The second sum is of 576 products of numbers around 1: 576 · 2^-24 = 3.4e-5.
    numpy.testing.assert_allclose(evaluated(first, x), y, rtol=4e-5, atol=4e-5)


def test_a_hundred_classes_change_the_classifier_only():
    assert CIFARResNet(20, 100).count_params() == 269_722 + 65 * 90


@pytest.mark.parametrize('depth', [18, 21, 2, 0, -4])
def test_a_resnet_depth_that_there_is_not_is_refused_in_one_line(depth):
    with pytest.raises(ValueError) as error:
        CIFARResNet(depth, 10)
    assert str(error.value) == f'depth: given {depth}, allowed: 6n + 2, such as 20, 56 or 110'


def test_a_preactivation_resnet_has_the_parameters_of_the_paper():
    # By hand: 18 blocks a stage, the inner convolutions w = 16, 32, 64 channels wide, i = 16, 64,
    # 128 channels in. A stage's first block has 2i + 2w + 2w in batch normalization and
    # iw + 9ww + 4ww + 4iw in convolutions; the 17 others have 12w and 17ww. That is
    # 4,704 + 17 · 4,544 = 81,952, 23,808 + 17 · 17,792 = 326,272 and 94,720 + 17 · 70,400 =
    # 1,291,520. First convolution 432, last batch normalization 512, classifier 256·10 + 10.
    count = 81_952 + 326_272 + 1_291_520 + 432 + 512 + 2_570
    assert PreActivationResNet(164, 10).count_params() == count == 1_703_258
    assert round(count / 1e6, 1) == 1.7  # the paper's figure, in millions


@pytest.mark.parametrize('depth', [163, 165, 2, 0])
def test_a_preactivation_depth_that_there_is_not_is_refused_in_one_line(depth):
    with pytest.raises(ValueError) as error:
        PreActivationResNet(depth, 10)
    assert str(error.value) == f'depth: given {depth}, allowed: 9n + 2, such as 164'


class Shapes(chainer.LinkHook):
    """Notes the shape of what each of a model's own links returns."""

    name = 'Shapes'

    def __init__(self, model):
        self.names = {id(child): child.name for child in model.children()}
        self.seen = {}

    def forward_postprocess(self, args):
        if id(args.link) in self.names:
            self.seen[self.names[id(args.link)]] = args.out.shape


@pytest.fixture(scope='module')
def resnet():
    """Both networks, made once; they are only looked at."""
    return {depth: ImageNetResNet(depth, 1000) for depth in (18, 50)}


def test_resnet_18_has_the_known_number_of_parameters(resnet):
    # By hand. 7×7 convolution 3·64·49 = 9,408; stages 4·64·64·9 = 147,456,
    # (64·128 + 3·128·128)·9 + 64·128 = 524,288, four times that, 2,097,152, and four times that,
    # 8,388,608. Gammas and betas: 2·(64·5 + 128·5 + 256·5 + 512·5) = 9,600. Classifier:
    # 512·1000 + 1000.
    count = 9_408 + 147_456 + 524_288 + 2_097_152 + 8_388_608 + 9_600 + 513_000
    assert resnet[18].count_params() == count == 11_689_512


def test_resnet_50_has_the_known_number_of_parameters(resnet):
    # By hand. A stage of b blocks of width w (4w out) on i channels: the first block has
    # iw + 9ww + 4ww + 4iw weights, the others 17ww. 73,728 + 2 · 69,632; 376,832 + 3 · 278,528;
    # 1,507,328 + 5 · 1,114,112; 6,029,312 + 2 · 4,456,448. Gammas and betas:
    # 2·(64 + (6·3 + 4)·64 + (6·4 + 4)·128 + (6·6 + 4)·256 + (6·3 + 4)·512) = 53,120. The 7×7
    # convolution 9,408, the classifier 2048·1000 + 1000.
    stages = 212_992 + 1_212_416 + 7_077_888 + 14_942_208
    count = stages + 53_120 + 9_408 + 2_049_000
    assert resnet[50].count_params() == count == 25_557_032


@pytest.mark.parametrize('depth, widths', [(18, (64, 128, 256, 512)), (50, (256, 512, 1024, 2048))])
def test_its_feature_maps_are_those_of_the_paper(resnet, depth, widths):
    model = resnet[depth]
    with chainer.no_backprop_mode(), Shapes(model) as shapes:
        model(numpy.zeros((1, 3, 224, 224), numpy.float32))
    assert shapes.seen == {  # table 1
        'conv1': (1, 64, 112, 112),
        'stage1': (1, widths[0], 56, 56),
        'stage2': (1, widths[1], 28, 28),
        'stage3': (1, widths[2], 14, 14),
        'stage4': (1, widths[3], 7, 7),
        'fc': (1, 1000),
    }


@pytest.mark.parametrize('depth, kind, blocks', [(18, BasicBlock, 8), (50, Bottleneck, 16)])
def test_each_of_its_blocks_can_start_as_its_shortcut(depth, kind, blocks):
    model = ImageNetResNet(depth, 10, zero_init_residual=True)
    found = [link for link in model.links() if isinstance(link, kind)]
    assert len(found) == blocks
    for block in found:
        in_channels = block.conv1.conv.W.shape[1]
        x = numpy.random.RandomState(0).standard_normal((2, in_channels, 4, 4)).astype('f')
        with chainer.no_backprop_mode():
            numpy.testing.assert_array_equal(
                block(x).array, numpy.maximum(chainer.as_array(block.shortcut(x)), 0)
            )


def halving_strides(model):
    stages = (link for link in model.children() if isinstance(link, Blocks))
    return {
        (stage['block1'].conv1.conv.stride, stage['block1'].conv2.conv.stride) for stage in stages
    }


def test_resnet_50_halves_in_the_1x1_convolution_and_if_asked_to_in_the_3x3(resnet):
    assert halving_strides(resnet[50]) == {((1, 1), (1, 1)), ((2, 2), (1, 1))}
    other = ImageNetResNet(50, 10, stride_in_3x3=True)
    assert halving_strides(other) == {((1, 1), (1, 1)), ((1, 1), (2, 2))}


@pytest.mark.parametrize('depth, more', [(18, 64 * 64 + 128), (50, 64)])
def test_the_variant_for_imagenet(depth, more):
    model = ImageNetResNet(depth, 1000, variant='zhao')
    # ResNet-18 has a projection in its first stage, too; the first convolution of -50 a bias.
    standard = {18: 11_689_512, 50: 25_557_032}
    assert model.count_params() == standard[depth] + more
    strides = {((1, 1), (1, 1)), ((1, 1), (2, 2)) if depth == 18 else ((2, 2), (1, 1))}
    assert halving_strides(model) == strides
    # Of 512,000 normal numbers and more: off by 0.1 % (one deviation).
    assert numpy.std(model.fc.W.array) == pytest.approx(0.01, rel=0.005)
    with chainer.no_backprop_mode(), Shapes(model) as shapes:
        model(numpy.zeros((1, 3, 224, 224), numpy.float32))
    assert shapes.seen['stage1'][2:] == (56, 56) and shapes.seen['stage4'][2:] == (7, 7)


@pytest.mark.parametrize('depth', [20, 34, '50'])
def test_a_depth_that_there_is_not_is_refused_in_one_line(depth):
    with pytest.raises(ValueError) as error:
        ImageNetResNet(depth, 10)
    assert str(error.value) == f'depth: given {depth}, allowed: 18 or 50'
