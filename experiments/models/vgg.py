"""VGG-16: for CIFAR, and as the trunk of SSD, with its trained weights.

Simonyan and Zisserman 2014 (arXiv 1409.1556), configuration D.
"""

import zipfile
import zlib

from experiments.config import bounded_file
from experiments.config.errors import ConfigError
from experiments.models.resnet import ConvBN

import chainer
import numpy
from chainer import functions, links
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

# The 3x3 convolutions of each size of the feature map: output channels by name.
_BLOCKS = [
    {f'conv{block}_{layer}': channels for layer in range(1, layers + 1)}
    for block, (channels, layers) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1)
]
_FC_CHANNELS = 1024
_MOST_BYTES = 2**30  # of a file of weights; VGG-16 has 528 MiB
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


class CIFARVGG16(chainer.Chain):
    """The 13 convolutions of VGG-16, each with ReLU, and one linear layer.

    The five poolings leave one pixel of a 32×32 image, so one layer takes the place of the paper's
    three. Larger images are averaged to one pixel.

    Args:
        classes (int): Number of classes.
        in_channels (int): Channels of the images.
        dropout (float): Share of the features that is dropped before the linear layer.
        batch_normalization (bool): Whether it stands between a convolution and its ReLU.
    """

    def __init__(self, classes, in_channels=3, dropout=0.0, batch_normalization=True):
        super().__init__()
        self.dropout = dropout
        he = chainer.initializers.HeNormal()
        with self.init_scope():
            for block in _BLOCKS:
                for name, channels in block.items():
                    if batch_normalization:
                        conv = ConvBN(in_channels, channels, 3, nobias=False)
                    else:
                        conv = links.Convolution2D(in_channels, channels, 3, pad=1, initialW=he)
                    setattr(self, name, conv)
                    in_channels = channels
            self.fc = links.Linear(in_channels, classes, initialW=he)

    def forward(self, x):
        """Returns the logits of a batch of images (n, channels, h, w)."""
        h = x
        for block in _BLOCKS:
            for name in block:
                h = functions.relu(self[name](h))
            h = functions.max_pooling_2d(h, 2)
        h = functions.mean(h, axis=(2, 3))
        if self.dropout > 0:
            h = functions.dropout(h, self.dropout)
        return self.fc(h)


class VGG16Trunk(chainer.Chain):
    """The convolutions ``conv1_1`` to ``conv5_3``, ``fc6`` and ``fc7`` of VGG-16, as SSD has them.

    Liu et al. 2016 (arXiv 1512.02325), section 3: no classifier and no dropout; pool5 is 3x3 with
    stride 1 instead of 2x2 with stride 2; fc6 is a dilated 3x3 convolution, fc7 a 1x1 one.
    Weights after He et al. (2015), biases 0; :func:`load_weights` sets trained ones. ``width`` is a
    factor on all numbers of channels.
    """

    def __init__(self, width=1.0):
        super().__init__()
        he = chainer.initializers.HeNormal()
        channels = 3
        with self.init_scope():
            for block in _BLOCKS:
                for name, size in block.items():
                    size = scale_channels(size, width)
                    conv = links.Convolution2D(channels, size, 3, pad=1, initialW=he)
                    setattr(self, name, conv)
                    channels = size
            size = scale_channels(_FC_CHANNELS, width)
            self.fc6 = links.Convolution2D(channels, size, 3, pad=6, dilate=6, initialW=he)
            self.fc7 = links.Convolution2D(size, size, 1, initialW=he)

    def forward(self, x):
        """Returns the two feature maps that boxes are found on.

        Args:
            x (~chainer.Variable): Images (n, 3, h, w), in the dtype of the weights.

        Returns:
            tuple: The activations of conv4_3, (n, channels, h / 8, w / 8), and of fc7,
            (n, channels, h / 16, w / 16); sizes are rounded up.
        """
        h = x
        for number, block in enumerate(_BLOCKS, 1):
            for name in block:
                h = functions.relu(self[name](h))
            if number == 4:
                conv4_3 = h
            if number < 5:
                h = functions.max_pooling_2d(h, 2, 2)
        h = functions.max_pooling_2d(h, 3, 1, pad=1)
        h = functions.relu(self.fc6(h))
        return conv4_3, functions.relu(self.fc7(h))


def scale_channels(channels, width):
    """Returns a number of channels times a width factor, rounded, at least 1."""
    return max(1, round(channels * width))


def load_weights(path, trunk):
    """Sets the parameters of a trunk to those of a trained VGG-16.

    Its linear layers become convolutions as in Liu et al. 2016, section 3: of fc6, seen as a 7x7
    convolution, every third row and column is kept, and every fourth output of fc6 and fc7, which
    are as many as the trunk has. VGG-16 was trained on images of blue, green and red.

    Args:
        path (str): What ``chainer.links.VGG16Layers`` is saved as by ``chainer.serializers``, an
            npz file with ``conv1_1/W``, ``conv1_1/b``, ... ``fc7/b``; or, if the name ends with
            ``.caffemodel``, the authors' VGG_ILSVRC_16_layers.caffemodel.
        trunk (VGG16Trunk): What gets them.

    Raises:
        ConfigError: If the file is missing, damaged, or holds something else.
    """
    names = [name for block in _BLOCKS for name in block]
    arrays = _read(path, [*names, 'fc6', 'fc7'])
    for name in names:
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
        with bounded_file.open_file(path) as file:
            npz = numpy.load(file)
            if not isinstance(npz, numpy.lib.npyio.NpzFile):
                raise ValueError('not an npz file')
            if sum(member.file_size for member in npz.zip.infolist()) > _MOST_BYTES:
                raise ValueError(f'it unpacks to more than {_MOST_BYTES // 2**20} MiB')
            oversized = bounded_file.oversized_array(npz.zip)
            if oversized is not None:
                raise ValueError(f'{oversized} claims more than the file has')
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
    try:
        net.ParseFromString(bounded_file.read(path, _MOST_BYTES))
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
