import io
import os
import re
import struct
import zipfile

from experiments.config.errors import ConfigError
from experiments.models.vgg import CIFARVGG16, VGG16Trunk, load_weights

import chainer
import numpy
import pytest
from chainer import links, serializers
from chainer.links.model.vision import vgg

WIDTH = 1 / 16


@pytest.fixture(scope='module')
def narrow_vgg():
    """Chainer's own VGG16Layers, untrained, with a sixteenth of its channels and units."""

    def narrow(link):
        def build(inputs, outputs, *args, **kwargs):
            inputs = inputs if inputs == 3 else inputs // 16
            return link(inputs, outputs // 16, *args, **kwargs)

        return build

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg, 'Convolution2D', narrow(links.Convolution2D))
        patch.setattr(vgg, 'Linear', narrow(links.Linear))
        model = links.VGG16Layers(pretrained_model=None)
    rng = numpy.random.RandomState(0)
    for param in model.params():  # biases too
        param.array[...] = rng.randn(*param.shape) / numpy.sqrt(param.size / len(param.array))
    return model


@pytest.fixture(scope='module')
def npz(narrow_vgg, tmp_path_factory):
    path = tmp_path_factory.mktemp('vgg') / 'vgg16.npz'
    serializers.save_npz(path, narrow_vgg, compression=False)
    return str(path)


@pytest.fixture
def trunk():
    return VGG16Trunk(WIDTH)


def test_without_batch_normalization_vgg_for_cifar_is_its_convolutions():
    model = CIFARVGG16(10, batch_normalization=False)
    # By hand: weights 9 (3·64 + 64² + 64·128 + 128² + 128·256 + 2·256² + 256·512 + 5·512²) and a
    # bias for each of 2·64 + 2·128 + 3·256 + 6·512 channels, and the classifier.
    assert model.count_params() == 9 * 1_634_496 + 4_224 + 5_130 == 14_719_818
    assert not [link for link in model.links() if isinstance(link, links.BatchNormalization)]
    x = numpy.random.RandomState(0).randn(2, 3, 32, 32).astype('f')
    model.conv1_1.b.array[...] = -1e3  # nothing passes the first ReLU, and all biases are 0
    numpy.testing.assert_array_equal(model(x).array, 0)


def test_the_features_are_those_of_vgg16_on_blue_green_red_images(npz, trunk, narrow_vgg):
    load_weights(npz, trunk)
    rgb = numpy.random.RandomState(0).randn(1, 3, 40, 40).astype(numpy.float32)
    expected = narrow_vgg(rgb[:, ::-1].copy(), layers=['conv4_3'])['conv4_3'].array
    (features, _) = trunk(chainer.Variable(rgb))
    assert expected.max() > 0.1
    # Ten layers of float32 sums of up to 9 * 32 terms, three of them in another order.
    numpy.testing.assert_allclose(features.array, expected, rtol=1e-4, atol=1e-5)


def test_the_linear_layers_are_decimated(npz, trunk, narrow_vgg):
    load_weights(npz, trunk)
    assert trunk.fc6.W.shape == (64, 32, 3, 3) and trunk.fc7.W.shape == (64, 64, 1, 1)
    full = narrow_vgg.fc6.W.array.reshape(256, 32, 7, 7)
    for output, row, column in [(0, 0, 0), (1, 1, 2), (63, 2, 1)]:
        kept = full[4 * output, :, 3 * row, 3 * column]
        numpy.testing.assert_array_equal(trunk.fc6.W.array[output, :, row, column], kept)
    numpy.testing.assert_array_equal(trunk.fc6.b.array[5], narrow_vgg.fc6.b.array[20])
    numpy.testing.assert_array_equal(trunk.fc7.W.array[3, 7, 0, 0], narrow_vgg.fc7.W.array[12, 28])
    numpy.testing.assert_array_equal(trunk.fc7.b.array[5], narrow_vgg.fc7.b.array[20])


def test_float16_parameters_are_rounded(npz, narrow_vgg):
    with chainer.using_config('dtype', chainer.mixed16):
        trunk = VGG16Trunk(WIDTH)
    load_weights(npz, trunk)
    expected = narrow_vgg.conv3_1.W.array.astype(numpy.float16)
    assert trunk.conv3_1.W.dtype == numpy.float16
    numpy.testing.assert_array_equal(trunk.conv3_1.W.array, expected)


def field(number, wire_type, payload):
    """A field of a protobuf message: 0 is a varint, 2 is bytes."""
    key = varint(number << 3 | wire_type)
    return key + (varint(payload) if wire_type == 0 else varint(len(payload)) + payload)


def varint(value):
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def caffemodel(model, old):
    """Writes a caffemodel as Caffe did until 2014, or as it does since."""
    blob_number, layer_number, name_number = (6, 2, 4) if old else (7, 100, 1)
    content = field(1, 2, b'VGG_ILSVRC_16_layers')
    for link in model.children():
        layer = field(name_number, 2, link.name.encode())
        for array in (link.W.array, link.b.array):
            data = field(5, 2, array.astype('<f4').tobytes())
            if old:
                sizes = (1,) * (4 - array.ndim) + array.shape
                shape = b''.join(field(number, 0, size) for number, size in enumerate(sizes, 1))
            else:
                shape = field(7, 2, field(1, 2, b''.join(map(varint, array.shape))))
            layer += field(blob_number, 2, shape + data)
        layer += field(1000, 2, b'a field that nobody asked for')
        content += field(layer_number, 2, layer)
    return content


@pytest.mark.parametrize('old', [True, False])
def test_a_caffemodel_gives_the_same_weights(npz, narrow_vgg, tmp_path, old):
    path = tmp_path / 'vgg16.caffemodel'
    path.write_bytes(caffemodel(narrow_vgg, old))
    trunk, expected = VGG16Trunk(WIDTH), VGG16Trunk(WIDTH)
    load_weights(str(path), trunk)
    load_weights(npz, expected)
    for (name, param), (_, of_npz) in zip(trunk.namedparams(), expected.namedparams()):
        numpy.testing.assert_array_equal(param.array, of_npz.array, err_msg=name)


MUST_BE = 'it must be the npz file that chainer.links.VGG16Layers is saved as'


def assert_refused(path, trunk, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        load_weights(str(path), trunk)
    message = str(caught.value)
    assert message.startswith(f'{path}: ') and MUST_BE in message and '\n' not in message


@pytest.mark.parametrize('name', ['vgg16.npz', 'vgg16.caffemodel'])
def test_a_missing_file_is_named(trunk, tmp_path, name):
    assert_refused(tmp_path / name, trunk, 'No such file')


@pytest.mark.parametrize('name', ['vgg16.npz', 'vgg16.caffemodel'])
@pytest.mark.parametrize('content', [b'', struct.pack('<100f', *range(100))])
def test_a_file_that_is_something_else_is_refused(trunk, tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert_refused(path, trunk, 'not a|No data|pickled|zip|missing')


def test_a_truncated_npz_is_refused(npz, trunk, tmp_path):
    path = tmp_path / 'vgg16.npz'
    with open(npz, 'rb') as file:
        content = file.read()
    path.write_bytes(content[: len(content) // 2])
    assert_refused(path, trunk, 'not a|No data|pickled|zip|missing')


def test_a_damaged_npz_is_refused(npz, trunk, tmp_path):
    path = tmp_path / 'vgg16.npz'
    with open(npz, 'rb') as file:
        content = bytearray(file.read())
    at = content.index(b'conv3_2/W.npy') + 5000
    content[at] ^= 0xFF
    path.write_bytes(content)
    assert_refused(path, trunk, 'Bad CRC-32 .*conv3_2')


def test_an_array_that_claims_more_than_there_is_is_refused(npz, trunk, tmp_path):
    path = tmp_path / 'huge.npz'
    header = io.BytesIO()
    claim = {'descr': '<f4', 'fortran_order': False, 'shape': (2**19, 2**19)}
    numpy.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('conv1_1/W.npy', header.getvalue() + bytes(64))
    assert_refused(path, trunk, 'conv1_1/W.npy claims more than the file has')


def test_an_npz_that_unpacks_to_more_than_any_weights_is_refused(npz, trunk, monkeypatch):
    monkeypatch.setattr('experiments.models.vgg._MOST_BYTES', 2**20)
    assert_refused(npz, trunk, 'it unpacks to more than 1 MiB')


def test_a_program_in_an_npz_does_not_run(trunk, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'trap'),)

    array = numpy.empty((), object)
    array[()] = Evil()
    numpy.savez(tmp_path / 'vgg16.npz', **{'conv1_1/W': array})
    assert_refused(tmp_path / 'vgg16.npz', trunk, 'allow_pickle=False')
    assert not (tmp_path / 'trap').exists()


def test_a_single_array_is_refused(trunk, tmp_path):
    numpy.save(tmp_path / 'vgg16.npy', numpy.zeros(3))
    assert_refused(tmp_path / 'vgg16.npy', trunk, 'not an npz file')


def test_a_model_of_another_kind_is_refused(trunk, tmp_path):
    path = tmp_path / 'other.npz'
    serializers.save_npz(path, links.Linear(2, 3))
    assert_refused(path, trunk, 'conv1_1/W is missing')


def test_a_model_of_another_width_is_refused(npz, tmp_path):
    expected = re.escape('conv1_1/W is (4, 3, 3, 3), must be (8, 3, 3, 3)')
    assert_refused(npz, VGG16Trunk(WIDTH * 2), expected)


def test_it_has_the_known_number_of_parameters():
    # By hand: 9 times 3·64 + 64·64 + 64·128 + 128·128 + 128·256 + 2·256·256 + 256·512 + 5·512·512
    # = 9 · 1,634,496 weights; a bias, a gamma and a beta for 2·64 + 2·128 + 3·256 + 6·512 = 4,224
    # channels; the classifier, 512·10 + 10.
    count = 14_710_464 + 3 * 4_224 + 5_130
    assert CIFARVGG16(10).count_params() == count == 14_728_266


def test_dropout_is_there_when_it_trains_only_and_if_it_is_asked_for():
    x = numpy.random.RandomState(0).standard_normal((4, 3, 32, 32)).astype(numpy.float32)
    model = CIFARVGG16(10, dropout=0.5)

    def differs():
        with chainer.no_backprop_mode():
            return (model(x).array != model(x).array).any()

    assert differs()
    with chainer.using_config('train', False):
        assert not differs()
    model.dropout = 0.0
    assert not differs()
