"""What holds for every model for images: dtypes, layer-wise scaling, snapshots, configs."""

import types

import chainerlp
from chainerlp.links import ScaledConvolution2D, ScaledLinear
from experiments import models
from experiments.config.errors import ConfigError
from experiments.data import Data
from experiments.models.resnet import CIFARResNet, ImageNetResNet, PreActivationResNet
from experiments.models.small_models import SmallCNN
from experiments.models.vgg import CIFARVGG16
from experiments.tasks import classification

import chainer
import numpy
import pytest
from chainer import links, optimizers, serializers

CLASSES = 5
# How to make it, the layers with weights (shortcuts included), the height of an image.
MODELS = {
    'cnn': (lambda: SmallCNN(3, CLASSES, (4, 8, 8)), 4, 8),
    'resnet_cifar': (lambda: CIFARResNet(8, CLASSES), 8, 8),
    'preactivation_resnet': (lambda: PreActivationResNet(11, CLASSES), 11 + 3, 8),
    'vgg_cifar': (lambda: CIFARVGG16(CLASSES, dropout=0.5), 14, 8),
    'resnet_imagenet-18': (lambda: ImageNetResNet(18, CLASSES), 18 + 3, 32),
    'resnet_imagenet-50': (lambda: ImageNetResNet(50, CLASSES), 50 + 4, 32),
}
# In all dtypes; the others take seconds to make, and are in mixed16 and float32 below.
SMALL = ['cnn', 'resnet_cifar', 'preactivation_resnet']
FLOAT16, FLOAT32 = numpy.dtype('float16'), numpy.dtype('float32')
DTYPES = {'float16': FLOAT16, 'float32': FLOAT32, 'mixed16': chainer.mixed16}


def made(name, dtype):
    """A model in a dtype, and a batch of images and classes for it."""
    make, _, size = MODELS[name]
    numpy.random.seed(0)
    with chainer.using_config('dtype', DTYPES[dtype]):
        model = make()
        x = numpy.random.standard_normal((4, 3, size, size)).astype(chainer.get_dtype())
    return model, x, numpy.arange(4, dtype=numpy.int32)


def layers_of(model):
    return [link for link in model.links() if isinstance(link, (links.Convolution2D, links.Linear))]


def norms_of(model):
    return [link for link in model.links() if isinstance(link, links.BatchNormalization)]


def check_dtypes(model, logits, dtype):
    """Everything as configured, but for batch normalization in mixed16: Chainer keeps float32."""
    computing = FLOAT32 if dtype == 'float32' else FLOAT16
    assert logits.dtype == computing
    assert {layer.W.dtype for layer in layers_of(model)} == {computing}
    kept = FLOAT16 if dtype == 'float16' else FLOAT32
    for norm in norms_of(model):
        assert {a.dtype for a in (norm.gamma, norm.beta, norm.avg_mean, norm.avg_var)} == {kept}


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('name', SMALL)
def test_it_computes_in_the_dtype_that_was_configured_when_it_was_built(name, dtype):
    model, x, _ = made(name, dtype)
    with chainer.no_backprop_mode():
        logits = model(x)
    assert logits.shape == (4, CLASSES)
    check_dtypes(model, logits, dtype)


@pytest.mark.parametrize('name', MODELS)
def test_a_step_with_layer_wise_scaling_reaches_every_layer(name):
    model, x, classes = made(name, 'mixed16')
    optimizer = chainerlp.AdaptiveLossScaling(optimizers.MomentumSGD(lr=0.01)).setup(model)
    layers = layers_of(model)
    assert len(layers) == MODELS[name][1]
    assert all(isinstance(layer, (ScaledConvolution2D, ScaledLinear)) for layer in layers)
    logits = model(x)
    assert logits.shape == (4, CLASSES)
    check_dtypes(model, logits, 'mixed16')
    model.cleargrads()
    optimizer.backward(classification.loss(logits, classes))
    optimizer.update()
    assert optimizer.skipped == 0
    assert all(chainerlp.unscaled_grad(layer.W).any() for layer in layers)
    arrays = [param.array for param in model.params()]
    arrays += [norm.avg_mean for norm in norms_of(model)]
    arrays += [norm.avg_var for norm in norms_of(model)]
    assert all(numpy.isfinite(array).all() for array in arrays)


@pytest.mark.parametrize('name', SMALL)
def test_a_snapshot_restores_it(name, tmp_path):
    model, x, classes = made(name, 'mixed16')
    optimizer = optimizers.MomentumSGD(lr=0.01).setup(model)
    optimizer.update(lambda: classification.loss(model(x), classes))
    serializers.save_npz(tmp_path / 'model.npz', model)
    other, _, _ = made(name, 'mixed16')
    with chainer.using_config('train', False):
        assert (other(x).array != model(x).array).any()
        serializers.load_npz(tmp_path / 'model.npz', other)
        numpy.testing.assert_array_equal(other(x).array, model(x).array)


# The keys of a section but its name, and what they lead to.
SECTIONS = {
    'cnn': ({'channels': (4, 8, 8)}, lambda model: model.conv3.W.shape == (8, 8, 3, 3)),
    'resnet_cifar': (
        {'depth': 14, 'variant': 'zhao'},
        lambda model: model.stage3['block2'] and model.stage1['block1'].shortcut.count_params(),
    ),
    'preactivation_resnet': ({'depth': 20}, lambda model: model.stage3['block2']),
    'vgg_cifar': (
        {'dropout': 0.5, 'batch_normalization': False},
        lambda model: model.dropout == 0.5 and model.conv1_1.b.shape == (64,),
    ),
    'resnet_imagenet': (
        {'depth': 18, 'zero_init_residual': True, 'stride_in_3x3': False, 'variant': 'he'},
        lambda model: not model.stage1['block1'].conv2.bn.gamma.array.any(),
    ),
}


def built(name, shape):
    section = types.SimpleNamespace(name=name, **SECTIONS[name][0])
    return models.build(section, Data(train=None, test=None, shape=shape, classes=7))


@pytest.mark.parametrize('name', SECTIONS)
def test_a_config_names_it_and_the_data_say_its_channels_and_classes(name):
    model = built(name, (1, 28, 28))
    with chainer.no_backprop_mode():
        logits = model(numpy.ones((2, 1, 28, 28), numpy.float32))
    assert logits.shape == (2, 7)
    check_dtypes(model, logits, 'float32')
    assert SECTIONS[name][1](model)


@pytest.mark.parametrize('name', SECTIONS)
def test_data_that_are_no_images_are_refused_in_one_line(name):
    with pytest.raises(ConfigError) as error:
        built(name, (64,))
    assert str(error.value) == (
        f'model.name: given {name}, which takes images (channels, height, width), but the data set'
        ' has examples of shape (64,), allowed for them: mlp'
    )
