"""SegNet-Basic: an encoder and a decoder that puts values back where max pooling took them from.

Badrinarayanan, Kendall and Cipolla 2017 (arXiv 1511.00561), section 3.1.
"""

from chainerlp.links import Cast

import chainer
import numpy
from chainer import functions, links

# From the input to the output.
_ENCODERS = ('conv1', 'conv2', 'conv3', 'conv4')
_DECODERS = ('conv_decode4', 'conv_decode3', 'conv_decode2', 'conv_decode1')
# Caffe's local response normalization divides alpha by the number of channels that it looks at,
# and adds 1 where Krizhevsky et al. and Chainer add 2.
_NEIGHBOURS = 5
_BETA = 1e-3  # as in the released network
_NORMALIZATION = {'n': _NEIGHBOURS, 'k': 1, 'alpha': 1e-4 / _NEIGHBOURS, 'beta': 0.75}


class SegNetBasic(chainer.Chain):
    """Four encoders and four decoders of 7x7 convolutions, and a 1x1 classifier of each pixel.

    As in the authors' released network (``Models/segnet_basic_train.prototxt`` in
    github.com/alexgkendall/SegNet-Tutorial), images go through a local response normalization,
    decoders have no ReLU, only the classifier has a bias, and weights are after He et al. (2015).
    Feature maps of odd height or width are pooled to sizes rounded up and unpooled to those that
    they had, so images may have any size.

    The normalization of the images is computed in float32, because its sum of squares overflows
    float16, and so are the statistics of the batch normalizations, which sum over hundreds of
    thousands of pixels.

    Args:
        classes (int): Number of classes.
        channels (int): Of every feature map.
        scaled_cast (bool): Whether the logits are cast to float32 here, by a
            :class:`chainerlp.links.Cast`, and not where the loss is computed.
    """

    def __init__(self, classes, channels=64, scaled_cast=False):
        super().__init__()
        he = chainer.initializers.HeNormal()
        in_channels = 3
        with self.init_scope():
            for name in _ENCODERS + _DECODERS:
                conv = links.Convolution2D(
                    in_channels, channels, 7, pad=3, nobias=True, initialW=he
                )
                setattr(self, name, conv)
                bn = links.BatchNormalization(channels, dtype=numpy.float32, initial_beta=_BETA)
                setattr(self, f'{name}_bn', bn)
                in_channels = channels
            self.conv_classifier = links.Convolution2D(channels, classes, 1, initialW=he)
            self.cast = Cast(lognormal=True) if scaled_cast else None

    def forward(self, images):
        """Returns the logits (n, classes, h, w) of a batch of images, in the network's dtype.

        In float32, if the cast is scaled.

        Args:
            images (:ref:`ndarray`): (n, 3, h, w), each value 0 to 255, in float32 whatever the
                network computes in.
        """
        x = functions.cast(chainer.as_variable(images), 'float32')
        x = functions.local_response_normalization(x, **_NORMALIZATION)
        h = functions.cast(x, self.conv1.W.dtype)
        poolings = []
        for name in _ENCODERS:
            h = functions.relu(self[f'{name}_bn'](self[name](h)))
            size = h.shape[2:]
            h, indices = functions.max_pooling_2d(h, 2, 2, return_indices=True)
            poolings.append((indices, size))
        for name, (indices, size) in zip(_DECODERS, reversed(poolings)):
            h = functions.upsampling_2d(h, indices, 2, 2, outsize=size)
            h = self[f'{name}_bn'](self[name](h))
        h = self.conv_classifier(h)
        return h if self.cast is None else self.cast(h)
