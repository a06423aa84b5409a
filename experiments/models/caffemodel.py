"""Reading the weights of a caffemodel.

Chainer has a reader too, but the code that it was generated as is refused by protobuf 4 and later.
Of Caffe's format (``src/caffe/proto/caffe.proto``) only the fields that hold names and arrays are
declared here; protobuf skips the others.
"""

import numpy
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

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


def read(path):
    """Reads the arrays of all layers.

    Args:
        path (str): The file.

    Returns:
        dict: From a layer's name to a list of its arrays, in float32: usually weight and bias.

    Raises:
        ValueError: If the file is not a caffemodel.
        OSError: If it cannot be read.
    """
    net = _net_class()()
    with open(path, 'rb') as file:
        try:
            net.ParseFromString(file.read())
        except DecodeError as error:
            raise ValueError(f'not a caffemodel: {error}') from None
    layers = [*net.old_layers, *net.layers]
    return {layer.name: [_array(blob) for blob in layer.blobs] for layer in layers if layer.blobs}


def _array(blob):
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
