"""The weights of VGG-16, trained on ImageNet, from a file that the user names."""

import zipfile
import zlib

from experiments.config.errors import ConfigError

import numpy
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

# Height and width of what VGG-16's fc6 sees: an image of 224x224 after five poolings.
_FC6_SIZE = 7

# Of Caffe's format (``src/caffe/proto/caffe.proto``) only the fields that hold names and arrays are
# declared; protobuf skips the others. Chainer's own reader is refused by protobuf 4 and later.
_PACKAGE = 'chainerlp.caffemodel'
_FIELD = descriptor_pb2.FieldDescriptorProto
# For each message its fields: (name, number, type, whether it is repeated). Packed floats are on
# the wire like bytes; as bytes they become an array without a Python object for each.
_MESSAGES = {
    'Shape': [('dim', 1, _FIELD.TYPE_INT64, True)],
    'Blob': [
        ('num', 1, _FIELD.TYPE_INT32, False),
        ('channels', 2, _FIELD.TYPE_INT32, False),
        ('height', 3, _FIELD.TYPE_INT32, False),
        ('width', 4, _FIELD.TYPE_INT32, False),
        ('data', 5, _FIELD.TYPE_BYTES, False),
        ('shape', 7, 'Shape', False),
    ],
    # A layer as Caffe wrote it until 2014, the year of VGG-16, and as it writes it since.
    'OldLayer': [('name', 4, _FIELD.TYPE_STRING, False), ('blobs', 6, 'Blob', True)],
    'Layer': [('name', 1, _FIELD.TYPE_STRING, False), ('blobs', 7, 'Blob', True)],
    'Net': [('old_layers', 2, 'OldLayer', True), ('layers', 100, 'Layer', True)],
}


def load(path, trunk):
    """Sets the parameters of a trunk to those of a trained VGG-16.

    Its linear layers become convolutions as in Liu et al. 2016, section 3: of fc6, seen as a 7x7
    convolution, every third row and column is kept, and every fourth output of fc6 and fc7, which
    are as many as the trunk has. VGG-16 was trained on images of blue, green and red; ours are
    red, green and blue.

    Args:
        path (str): What ``chainer.links.VGG16Layers`` is saved as by ``chainer.serializers``, an
            npz file with ``conv1_1/W``, ``conv1_1/b``, ... ``fc7/b``; or, if the name ends with
            ``.caffemodel``, the authors' VGG_ILSVRC_16_layers.caffemodel.
        trunk (experiments.models.vgg.VGG16Trunk): What gets them.

    Raises:
        ConfigError: If the file is missing, damaged, or holds something else.
    """
    arrays = _read(path, [*trunk.conv_names, 'fc6', 'fc7'])
    for name in trunk.conv_names:
        link = trunk[name]
        W, b = _weight_and_bias(path, arrays, name, link.W.shape)
        _set(link, W[:, ::-1] if name == 'conv1_1' else W, b)
    # VGG-16's own fc6 and fc7 have four times as many units.
    inputs, units = trunk.fc6.W.shape[1], 4 * trunk.fc6.out_channels
    W, b = _weight_and_bias(path, arrays, 'fc6', (units, inputs * _FC6_SIZE**2))
    W = W.reshape(units, inputs, _FC6_SIZE, _FC6_SIZE)
    _set(trunk.fc6, W[::4, :, ::3, ::3], b[::4])
    W, b = _weight_and_bias(path, arrays, 'fc7', (units, units))
    _set(trunk.fc7, W[::4, ::4, None, None], b[::4])


def _set(link, W, b):
    link.W.array[...], link.b.array[...] = link.xp.asarray(W), link.xp.asarray(b)


def _read(path, names):
    """Returns the arrays of those of these layers that there are, by names like conv1_1/W."""
    try:
        if path.endswith('.caffemodel'):
            return {
                f'{name}/{key}': array
                for name, arrays in _read_caffemodel(path).items()
                for key, array in zip('Wb', arrays)
            }
        with open(path, 'rb') as file:
            npz = numpy.load(file)
            if not isinstance(npz, numpy.lib.npyio.NpzFile):
                raise ValueError('not an npz file')
            keys = [f'{name}/{key}' for name in names for key in 'Wb']
            return {key: npz[key] for key in keys if key in npz}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _error(path, getattr(error, 'strerror', None) or error) from None


def _weight_and_bias(path, arrays, name, W_shape):
    """Returns a layer's weight and bias, checked."""
    pair = []
    for key, shape in ((f'{name}/W', W_shape), (f'{name}/b', W_shape[:1])):
        if key not in arrays:
            raise _error(path, f'{key} is missing')
        array = arrays[key]
        # Caffe until 2014: a vector is (1, 1, 1, n), a matrix (1, 1, m, n).
        added = array.ndim - len(shape)
        if array.shape[:added] == (1,) * added:
            array = array.reshape(array.shape[added:])
        if array.shape != shape:
            raise _error(path, f'{key} is {array.shape}, must be {shape}')
        pair.append(array)
    return pair


def _error(path, what):
    return ConfigError(
        f'{path}: {what}; it must be the npz file that chainer.links.VGG16Layers is saved as, or'
        ' VGG_ILSVRC_16_layers.caffemodel, and the model of width 1'
    )


def _read_caffemodel(path):
    """Returns the arrays of all layers, a dict from a layer's name to a list of float32 arrays."""
    net = _net_class()()
    with open(path, 'rb') as file:
        try:
            net.ParseFromString(file.read())
        except DecodeError as error:
            raise ValueError(f'not a caffemodel: {error}') from None
    layers = [*net.old_layers, *net.layers]
    return {
        layer.name: [_blob_array(blob) for blob in layer.blobs] for layer in layers if layer.blobs
    }


def _blob_array(blob):
    values = numpy.frombuffer(blob.data, '<f4')
    if blob.HasField('shape'):
        return values.reshape(tuple(blob.shape.dim))
    return values.reshape(blob.num, blob.channels, blob.height, blob.width)


def _net_class():
    file = descriptor_pb2.FileDescriptorProto(
        name=f'{_PACKAGE}.proto', package=_PACKAGE, syntax='proto2'
    )
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            field = declared.field.add(name=name, number=number, label=label)
            if isinstance(kind, str):
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, f'.{_PACKAGE}.{kind}'
            else:
                field.type = kind
            if (message, name) == ('Shape', 'dim'):
                field.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f'{_PACKAGE}.Net'))
