"""The weights of VGG-16, trained on ImageNet, from a file that the user names."""

import zipfile

import chainerlp  # noqa: F401 -- it lets Chainer be imported
from experiments.errors import ConfigError
from experiments.models import caffemodel

import numpy

# Height and width of what VGG-16's fc6 sees: an image of 224x224 after five poolings.
_FC6_SIZE = 7


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
        trunk (experiments.models.vgg16_trunk.VGG16Trunk): What gets them.

    Raises:
        ConfigError: If the file is missing, damaged, or holds something else.
    """
    parameters = _Parameters(path)
    for name in trunk.conv_names:
        link = trunk[name]
        W = parameters.array(name, 'W', link.W.shape)
        if name == 'conv1_1':
            W = W[:, ::-1]
        _set(link, W, parameters.array(name, 'b', link.b.shape))
    # VGG-16's own fc6 and fc7 have four times as many units.
    units = 4 * trunk.fc6.out_channels
    inputs = trunk.fc6.W.shape[1]
    W = parameters.array('fc6', 'W', (units, inputs * _FC6_SIZE**2))
    b = parameters.array('fc6', 'b', (units,))
    W = W.reshape(units, inputs, _FC6_SIZE, _FC6_SIZE)
    _set(trunk.fc6, W[::4, :, ::3, ::3], b[::4])
    W = parameters.array('fc7', 'W', (units, units))
    b = parameters.array('fc7', 'b', (units,))
    _set(trunk.fc7, W[::4, ::4, None, None], b[::4])


def _set(link, W, b):
    link.W.array[...] = link.xp.asarray(W)
    link.b.array[...] = link.xp.asarray(b)


class _Parameters:
    """The parameters in a file, each checked when it is asked for."""

    def __init__(self, path):
        self._path = path
        try:
            if path.endswith('.caffemodel'):
                layers = caffemodel.read(path)
                self._arrays = {
                    f'{name}/{key}': array
                    for name, arrays in layers.items()
                    for key, array in zip('Wb', arrays)
                }
            else:
                self._arrays = numpy.load(path)
                if not isinstance(self._arrays, numpy.lib.npyio.NpzFile):
                    raise ValueError('not an npz file')
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise self._error(getattr(error, 'strerror', None) or error) from None

    def array(self, name, key, shape):
        key = f'{name}/{key}'
        if key not in self._arrays:
            raise self._error(f'{key} is missing')
        try:
            array = self._arrays[key]  # of an npz, it is read now
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise self._error(f'{key} cannot be read: {error}') from None
        # Caffe until 2014: a vector is (1, 1, 1, n), a matrix (1, 1, m, n).
        if array.ndim == 4 and array.shape[: 4 - len(shape)] == (1,) * (4 - len(shape)):
            array = array.reshape(array.shape[4 - len(shape) :])
        if array.shape != shape:
            raise self._error(f'{key} is {array.shape}, must be {shape}')
        return array

    def _error(self, what):
        return ConfigError(
            f'{self._path}: {what}; it must be the npz file that chainer.links.VGG16Layers is saved'
            ' as, or VGG_ILSVRC_16_layers.caffemodel, for a model of width 1'
        )
