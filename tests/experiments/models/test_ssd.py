from types import SimpleNamespace

import chainerlp
from experiments import models
from experiments.data import Data
from experiments.models.ssd import Normalize
from experiments.models.ssd_boxes import BoxMatcher
from experiments.models.vgg import VGG16Trunk
from experiments.tasks.detection import TrainChain

import chainer
import numpy
import pytest
from chainer import serializers

NARROW = 1 / 16


def build(classes=3, size=300, width=NARROW, pretrained=None, scaled_cast=False):
    section = SimpleNamespace(
        name='ssd', size=size, width=width, pretrained=pretrained, scaled_cast=scaled_cast
    )
    data = Data(train=None, test=None, shape=(3, size, size), classes=classes)
    return models.build(section, data)


def conv(in_channels, out_channels, ksize):
    """Parameters of a convolution with a bias."""
    return in_channels * out_channels * ksize**2 + out_channels


def published_count(extras, boxes_per_cell, classes_and_background):
    """Adds up Figure 2 of Liu et al.: trunk, normalization, further maps, heads."""
    vgg = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    count = sum(conv(*pair, 3) for pair in zip(vgg, vgg[1:]))  # 14,714,688: VGG-16's convolutions
    count += conv(512, 1024, 3) + conv(1024, 1024, 1) + 512  # fc6, fc7, the scales of conv4_3
    maps = [512, 1024]
    for between, out, ksize in extras:
        count += conv(maps[-1], between, 1) + conv(between, out, ksize)
        maps.append(out)
    for channels, boxes in zip(maps, boxes_per_cell):
        count += conv(channels, boxes * (4 + classes_and_background), 3)
    return count


def test_ssd300_has_the_parameters_of_the_published_layers():
    extras = [(256, 512, 3), (128, 256, 3), (128, 256, 3), (128, 256, 3)]
    expected = published_count(extras, [4, 6, 6, 6, 4, 4], 21)
    assert expected == 26_285_486  # 26.3 M
    assert build(classes=20, width=1.0).count_params() == expected


def test_ssd512_has_the_parameters_of_the_published_layers():
    extras = [(256, 512, 3), (128, 256, 3), (128, 256, 3), (128, 256, 3), (128, 256, 4)]
    expected = published_count(extras, [4, 6, 6, 6, 6, 4, 4], 21)
    assert expected == 27_188_676  # 27.2 M
    assert build(classes=20, size=512, width=1.0).count_params() == expected


@pytest.mark.parametrize('size, boxes', [(300, 8732), (512, 24564)])
@pytest.mark.parametrize('dtype', [numpy.dtype('float32'), chainer.mixed16])
def test_its_outputs_have_a_row_for_each_default_box_in_the_configured_dtype(size, boxes, dtype):
    with chainer.using_config('dtype', dtype):
        model, expected = build(size=size), chainer.get_dtype()
    chainerlp.convert(model, chainerlp.policies.Fixed(1))  # float16 on a CPU takes forever without
    images = numpy.random.RandomState(0).uniform(0, 255, (1, 3, size, size)).astype(numpy.float32)
    with chainer.no_backprop_mode():
        locs, confs = model(images)
    assert model.default_boxes.shape == (boxes, 4)
    assert locs.shape == (1, boxes, 4) and confs.shape == (1, boxes, 4)
    assert locs.dtype == confs.dtype == expected
    assert numpy.isfinite(locs.array).all() and numpy.isfinite(confs.array).all()


def test_the_outputs_are_in_the_order_of_the_default_boxes():
    model = build()
    images = numpy.full((1, 3, 300, 300), 128, numpy.float32)
    with chainer.no_backprop_mode():
        _, before = model(images)
        images[0, :, 290:, :10] = 255  # bottom left
        _, after = model(images)
    changed = (before.array != after.array).any(axis=(0, 2))[: 38 * 38 * 4]
    # A position of conv4_3 sees 92 pixels, and the head 2 positions, of 8 pixels, more: 54 to each
    # side of its centre, which is that of a default box but for a few pixels.
    y, x = model.default_boxes[: 38 * 38 * 4][changed, :2].T
    assert changed.sum() > 4 and y.min() > 290 - 62 and x.max() < 10 + 62


def test_the_values_of_one_box_stand_side_by_side():
    model = build(classes=2)
    model.conf1.W.array[...] = model.loc1.W.array[...] = 0
    model.conf1.b.array[...] = numpy.arange(4 * 3)  # four boxes a cell, three logits each
    model.loc1.b.array[...] = numpy.arange(4 * 4)
    with chainer.no_backprop_mode():
        locs, confs = model(numpy.zeros((1, 3, 300, 300), numpy.float32))
    for box in (0, 1, 3, 4, 38 * 38 * 4 - 1):
        assert confs.array[0, box].tolist() == [3 * (box % 4) + i for i in range(3)]
        assert locs.array[0, box].tolist() == [4 * (box % 4) + i for i in range(4)]


def test_images_of_another_size_are_an_error():
    with pytest.raises(ValueError, match=r'given images of \(3, 300, 301\), must be \(3, 300, 300'):
        build()(numpy.zeros((1, 3, 300, 301), numpy.float32))
    with pytest.raises(ValueError, match=r'given size 400, must be one of \[300, 512\]'):
        build(size=400)


def test_pretrained_weights_see_pixels_as_vgg16_does(tmp_path):
    # Without them, pixels are brought to about 1; with them, only the mean is subtracted.
    pixels = numpy.full((1, 3, 300, 300), 200, numpy.float32)
    seen = []

    class Ears(chainer.FunctionHook):
        def forward_preprocess(self, function, inputs):
            if function.label == 'Convolution2DFunction' and not seen:
                seen.append(inputs[0][0, :, 0, 0].tolist())

    with Ears(), chainer.no_backprop_mode():
        build()(pixels)
    assert seen.pop() == [77 / 64, 83 / 64, 96 / 64]  # 200 - (123, 117, 104)
    path = tmp_path / 'vgg16.npz'
    serializers.save_npz(path, _fake_vgg(VGG16Trunk(NARROW)))
    model = build(pretrained=str(path))
    assert (model.trunk.fc7.W.array == 2.0**-9).all()
    with Ears(), chainer.no_backprop_mode():
        model(pixels)
    assert seen == [[77, 83, 96]]


def _fake_vgg(trunk):
    vgg = chainer.Chain()
    with vgg.init_scope():
        for link in trunk.children():
            if link.name.startswith('conv'):
                setattr(vgg, link.name, link)
        vgg.fc6 = chainer.links.Linear(32 * 49, 256, initialW=2.0**-9)
        vgg.fc7 = chainer.links.Linear(256, 256, initialW=2.0**-9)
    return vgg


@pytest.mark.parametrize('dtype', [numpy.dtype('float32'), chainer.mixed16])
def test_it_learns_an_image_by_heart_with_adaptive_scaling(dtype):
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        model = TrainChain(build(classes=2))
        optimizer = chainerlp.AdaptiveLossScaling(chainer.optimizers.Adam(1e-3)).setup(model)
    image = numpy.random.RandomState(0).uniform(0, 60, (3, 300, 300)).astype(numpy.float32)
    image[0, 40:160, 50:150] = 250  # a red box and a blue one
    image[2, 180:260, 150:290] = 250
    boxes = numpy.array([[40, 50, 160, 150], [180, 150, 260, 290]], numpy.float32)
    example = (image, boxes, numpy.array([1, 0], numpy.int32))
    batch = [array[None] for array in BoxMatcher(model.predictor.default_boxes)(example)]
    losses = []
    for _ in range(10):
        optimizer.update(lambda *args: losses.append(model(*args)) or losses[-1], *batch)
    losses = [float(loss.array) for loss in losses]
    assert optimizer.skipped == 0
    assert max(losses[-3:]) < 0.5 * losses[0], losses


@pytest.fixture
def x():
    return numpy.random.RandomState(0).randn(2, 5, 3, 4).astype(numpy.float32)


def test_the_channels_of_each_position_get_a_norm_of_20(x):
    y = Normalize(5)(x).array
    norm = numpy.sqrt((y.astype(float) ** 2).sum(axis=1))
    numpy.testing.assert_allclose(norm, numpy.full((2, 3, 4), 20.0), rtol=1e-6)
    numpy.testing.assert_allclose(y / y[:, :1], x / x[:, :1], rtol=1e-5)  # in proportion


def test_its_gradients_are_those_of_the_formula(x):
    link = Normalize(5)
    link.scale.array[...] = numpy.arange(1, 6)
    x = chainer.Variable(x)
    gy = numpy.random.RandomState(1).randn(*x.shape).astype(numpy.float32)
    y = link(x)
    link.cleargrads()
    y.grad = gy
    y.backward()
    # y = s u with u = x / |x|: the gradient of s is the sum of u gy, that of x is the part of
    # s gy across u, divided by |x|.
    x64, scale = x.array.astype(float), numpy.arange(1.0, 6.0)[:, None, None]
    norm = numpy.sqrt((x64**2).sum(axis=1, keepdims=True))
    u = x64 / norm
    along = (u * scale * gy).sum(axis=1, keepdims=True)
    # Float32 sums of up to 24 terms: 24 * 2^-24 of the largest ones, some of which cancel.
    numpy.testing.assert_allclose(x.grad, (scale * gy - u * along) / norm, rtol=1e-5, atol=1e-5)
    numpy.testing.assert_allclose(link.scale.grad, (u * gy).sum(axis=(0, 2, 3)), rtol=1e-5)


def test_squares_that_float16_cannot_hold_are_no_trouble():
    x = numpy.full((1, 512, 1, 1), 300, numpy.float16)  # 300^2 alone is over 65504
    with chainer.using_config('dtype', chainer.mixed16):
        link = Normalize(512)
    y = link(x)
    assert y.dtype == numpy.float16 and link.scale.dtype == numpy.float32
    # 20 / sqrt(512), rounded to float16.
    numpy.testing.assert_allclose(y.array, 20 / 512**0.5, rtol=2**-11)


def test_where_all_channels_are_zero_the_output_is_zero_and_the_gradient_finite():
    x = chainer.Variable(numpy.zeros((1, 3, 2, 2), numpy.float32))
    y = Normalize(3)(x)
    y.grad = numpy.ones_like(y.array)
    y.backward()
    assert not y.array.any() and numpy.isfinite(x.grad).all()


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_its_scale_has_the_configured_dtype(dtype):
    with chainer.using_config('dtype', numpy.dtype(dtype)):
        assert Normalize(3).scale.dtype == dtype


def test_scaled_casts_are_one_for_each_output_and_change_no_number_and_no_parameter():
    with chainer.using_config('dtype', chainer.mixed16):
        plain, scaled = build(), build(scaled_cast=True)
    for param, of in zip(scaled.params(), plain.params()):
        param.array[...] = of.array
    policy = chainerlp.policies.Adaptive(max_scale=65504.0, max_total_scale=65504.0)
    for model in (plain, scaled):
        chainerlp.convert(model, policy)
    images = numpy.random.RandomState(0).uniform(0, 255, (1, 3, 300, 300)).astype('f')
    with chainer.no_backprop_mode():
        outputs = zip(plain(images), scaled(images))
    for theirs, ours in outputs:
        assert theirs.dtype == numpy.float16 and ours.dtype == numpy.float32
        numpy.testing.assert_array_equal(theirs.array, ours.array)
    casts = {
        path: type(link.layer_scale.policy)
        for path, link in scaled.namedlinks()
        if isinstance(link, chainerlp.links.ScaledCast)
    }
    policies = chainerlp.policies.Adaptive, chainerlp.policies.LogNormal
    assert casts.pop('/normalize/cast') is policies[0] and len(casts) == 12
    assert {kind for path, kind in casts.items() if 'conf' in path} == {policies[1]}
    assert {kind for path, kind in casts.items() if 'loc' in path} == {policies[0]}
    assert plain.count_params() == scaled.count_params()
