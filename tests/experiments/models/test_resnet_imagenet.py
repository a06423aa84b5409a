from experiments.models.resnet_blocks import BasicBlock, Bottleneck
from experiments.models.resnet_imagenet import ImageNetResNet

import chainer
import numpy
import pytest


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
    stages = (model.stage2, model.stage3, model.stage4)
    return {(stage[0].conv1.conv.stride, stage[0].conv2.conv.stride) for stage in stages}


def test_resnet_50_halves_in_the_1x1_convolution_and_if_asked_to_in_the_3x3(resnet):
    assert halving_strides(resnet[50]) == {((2, 2), (1, 1))}
    other = ImageNetResNet(50, 10, stride_in_3x3=True)
    assert halving_strides(other) == {((1, 1), (2, 2))}


@pytest.mark.parametrize('depth', [20, 34, '50'])
def test_a_depth_that_there_is_not_is_refused_in_one_line(depth):
    with pytest.raises(ValueError) as error:
        ImageNetResNet(depth, 10)
    assert str(error.value) == f'depth: given {depth}, allowed: 18 or 50'
