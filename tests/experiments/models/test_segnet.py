import chainerlp
from experiments.models.segnet import SegNetBasic
from experiments.tasks.segmentation import TrainChain

import chainer
import numpy
import pytest
from chainer import functions


def build(channels=4, classes=3):
    return SegNetBasic(classes, channels)


def images(*size):
    return numpy.random.RandomState(0).uniform(0, 255, (2, 3, *size)).astype(numpy.float32)


def test_it_has_the_parameters_of_segnet_basic():
    # 7x7 convolutions without biases, 3 to 64 channels and seven times 64 to 64, a scale and a
    # shift for each channel of eight batch normalizations, and 64 + 1 for each of 11 classes.
    expected = 49 * 3 * 64 + 7 * 49 * 64 * 64 + 8 * 2 * 64 + (64 + 1) * 11
    assert expected == 1_416_075
    assert build(channels=64, classes=11).count_params() == expected
    # Table 1 of Badrinarayanan et al. says 1.425 M, and not what it counts.
    assert expected == pytest.approx(1.425e6, rel=0.007)


# 360x480, as CamVid is, goes to 45x60 and then to 23x30: here the same at a quarter, and sizes that
# are odd at once.
@pytest.mark.parametrize('size', [(90, 120), (31, 33), (16, 16)])
@pytest.mark.parametrize('dtype', ['float32', 'float16', 'mixed16'])
def test_every_pixel_of_an_image_of_any_size_gets_logits_in_the_configured_dtype(size, dtype):
    dtype = chainer.mixed16 if dtype == 'mixed16' else numpy.dtype(dtype)
    with chainer.using_config('dtype', dtype):
        model, expected = build(), chainer.get_dtype()
    chainerlp.convert(model, chainerlp.policies.Fixed(1))  # float16 on a CPU takes forever without
    with chainer.no_backprop_mode():
        y = model(images(*size))
    assert y.shape == (2, 3, *size) and y.dtype == expected == model.conv1.W.dtype
    assert numpy.isfinite(y.array).all()


def test_in_float16_it_computes_what_it_computes_in_float32():
    x = images(45, 60)
    numpy.random.seed(0)
    model = build()
    with chainer.using_config('dtype', chainer.mixed16):
        rounded = build()
    for param, of in zip(rounded.params(), model.params()):
        param.array[...] = of.array
    chainerlp.convert(rounded, chainerlp.policies.Fixed(1))
    with chainer.no_backprop_mode():
        y, expected = rounded(x).array.astype('f'), model(x).array
    # Nine layers round weights and outputs, 18 * 2^-11 or 1 % in all. Where a window's two largest
    # values are rounded to one, the first is put back, maybe elsewhere than in float32: hence the
    # median, and five times that bound. Logits of another network would be off by over 100 %.
    assert numpy.median(abs(y - expected)) < 5 * 18 * 2**-11 * expected.std()


def classifier_gradient(dtype, scaled_cast):
    """That of the classifier's weight, of a loss as small as a mean over many pixels makes it."""
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        chain = TrainChain(SegNetBasic(3, 4, scaled_cast))
    policy = chainerlp.policies.Adaptive(max_scale=65504.0, max_total_scale=65504.0)
    chainerlp.convert(chain, policy)
    labels = numpy.random.RandomState(1).randint(0, 3, (2, 45, 60)).astype('i')
    chain.cleargrads()
    loss = chain(images(45, 60), labels) * numpy.float32(2**-14)
    chainerlp.backward(loss)
    return chainerlp.unscaled_grad(chain.predictor.conv_classifier.W)


def test_a_scaled_cast_saves_the_gradient_of_the_logits():
    exact = classifier_gradient(numpy.dtype('float32'), False)
    # A pixel's gradient is under 2^-14 / 5400, 2^-26.4: all of it is lost.
    assert not classifier_gradient(chainer.mixed16, False).any()
    saved = classifier_gradient(chainer.mixed16, True)
    # As the roundings of nine layers above; a sum over the pixels, not of their magnitudes.
    assert numpy.linalg.norm(saved - exact) < 0.1 * numpy.linalg.norm(exact)


def test_normalizations_start_a_little_above_zero():
    model = build()
    for name in ('conv1_bn', 'conv_decode1_bn'):
        numpy.testing.assert_array_equal(model[name].beta.array, numpy.float32(1e-3))


@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32])
@pytest.mark.parametrize('size', [(4, 6), (5, 7)])
def test_unpooling_puts_the_largest_values_back_where_they_were(dtype, size):
    # What SegNet takes from Chainer, at sizes that two does not divide.
    x = numpy.random.RandomState(0).permutation(2 * 3 * size[0] * size[1]).astype(dtype) + 1
    x = x.reshape(2, 3, *size)
    y, indices = functions.max_pooling_2d(x, 2, 2, return_indices=True)
    back = functions.upsampling_2d(y, indices, 2, 2, outsize=size).array
    assert back.dtype == dtype and back.shape == x.shape
    assert y.shape[2:] == (-(-size[0] // 2), -(-size[1] // 2))
    kept = back != 0
    numpy.testing.assert_array_equal(back[kept], x[kept])
    assert kept.sum() == y.size
    numpy.testing.assert_array_equal(numpy.sort(back[kept]), numpy.sort(y.array.ravel()))


def test_a_decoder_uses_the_indices_of_its_own_encoder():
    # Each decoder's input is as large as its encoder's output before pooling, and is not zero in
    # one of four places.
    shares = []

    class Ears(chainer.FunctionHook):
        def forward_postprocess(self, function, inputs):
            if function.label == 'Upsampling2D':
                shares.append((function.outh, function.outw))

    with Ears(), chainer.no_backprop_mode():
        build()(images(36, 44))
    assert shares == [(5, 6), (9, 11), (18, 22), (36, 44)]


def test_bright_images_are_normalized_without_overflow():
    # 3 * 255^2 is 195075: over float16. Caffe's formula: x / (1 + 1e-4 / 5 * sum of squares)^0.75.
    seen = []

    class Ears(chainer.FunctionHook):
        def forward_preprocess(self, function, inputs):
            if function.label == 'Convolution2DFunction' and not seen:
                seen.append(inputs[0].copy())

    with chainer.using_config('dtype', chainer.mixed16), Ears(), chainer.no_backprop_mode():
        build()(numpy.full((1, 3, 16, 16), 255, numpy.float32))
    expected = 255 / (1 + 2e-5 * 195075) ** 0.75
    assert seen[0].dtype == numpy.float16
    numpy.testing.assert_allclose(seen[0], expected, rtol=2**-11)


@pytest.mark.parametrize('dtype', [numpy.dtype('float32'), chainer.mixed16])
def test_it_learns_an_image_by_heart_with_adaptive_scaling(dtype):
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        model = TrainChain(build(), numpy.array([1, 1, 2], numpy.float32))
        optimizer = chainer.optimizers.MomentumSGD(0.1)
        optimizer = chainerlp.AdaptiveLossScaling(optimizer, initial_scale='auto').setup(model)
    x = images(45, 60)
    labels = (x.mean(axis=1) > 140).astype(numpy.int32)
    x[0, :, 5:25, 10:40], labels[0, 5:25, 10:40] = 250, 2
    labels[:, :3] = -1
    losses = []
    for _ in range(15):
        optimizer.update(lambda *args: losses.append(model(*args)) or losses[-1], x, labels)
    losses = [float(loss.array) for loss in losses]
    assert optimizer.skipped == 0
    assert max(losses[-3:]) < 0.7 * losses[0], losses
