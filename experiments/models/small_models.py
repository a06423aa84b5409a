"""Small models: a multilayer perceptron of any depth, and two convolutional networks."""

import math

import chainer
from chainer import functions, links

_ACTIVATIONS = {
    'relu': (functions.relu, chainer.initializers.HeNormal),
    'sigmoid': (functions.sigmoid, chainer.initializers.LeCunNormal),
}


class MLP(chainer.Chain):
    """Linear layers ``fc1``, ``fc2``, ... with an activation in between.

    Args:
        in_size (int): Number of features.
        units (int): Units of every layer but the last.
        classes (int): Units of the last layer.
        layers (int): Number of linear layers.
        activation (str): ``'relu'``, with weights after He et al. (2015); or ``'sigmoid'``, with
            weights after LeCun et al. (1998), down which gradients decay layer by layer.
    """

    def __init__(self, in_size, units, classes, layers, activation='relu'):
        super().__init__()
        self._names = [f'fc{index}' for index in range(1, layers + 1)]
        sizes = [in_size] + [units] * (layers - 1) + [classes]
        self._activation, initializer = _ACTIVATIONS[activation]
        with self.init_scope():
            for name, size, out_size in zip(self._names, sizes, sizes[1:]):
                setattr(self, name, links.Linear(size, out_size, initialW=initializer()))

    def forward(self, x):
        """Returns the logits of a batch of features, of whatever shape."""
        first, *others = (self[name] for name in self._names)
        h = first(functions.reshape(x, (len(x), -1)))
        for layer in others:
            h = layer(self._activation(h))
        return h


class SmallCNN(chainer.Chain):
    """Three 3×3 convolutions with ReLU, the last two of stride 2, and a linear classifier.

    Args:
        in_channels (int): Channels of the images.
        classes (int): Number of classes.
        channels (tuple of int): Output channels of the convolutions.
        size (tuple of int): Height and width of the images; ``None``: those of the first batch.
    """

    def __init__(self, in_channels, classes, channels=(32, 64, 64), size=None):
        super().__init__()
        first, second, third = channels
        # The dtype of now: the last layer may not be made before the first batch.
        he = chainer.initializers.HeNormal(dtype=chainer.get_dtype())
        features = size and third * math.prod(-(-side // 4) for side in size)
        with self.init_scope():
            self.conv1 = links.Convolution2D(in_channels, first, 3, pad=1, initialW=he)
            self.conv2 = links.Convolution2D(first, second, 3, 2, pad=1, initialW=he)
            self.conv3 = links.Convolution2D(second, third, 3, 2, pad=1, initialW=he)
            self.fc = links.Linear(features, classes, initialW=he)

    def forward(self, x):
        """Returns the logits of a batch of images (n, channels, h, w)."""
        h = functions.relu(self.conv1(x))
        h = functions.relu(self.conv2(h))
        h = functions.relu(self.conv3(h))
        return self.fc(h)


class DeepCNN(chainer.Chain):
    """Five 3×3 convolutions with ReLU, two max poolings, and a linear classifier of the averages.

    Args:
        in_channels (int): Channels of the images.
        classes (int): Number of classes.
        batch_normalization (bool): Whether each convolution is followed by one.
    """

    def __init__(self, in_channels, classes, batch_normalization=False):
        super().__init__()
        channels = [in_channels, 16, 16, 32, 32, 64]
        he = chainer.initializers.HeNormal()
        with self.init_scope():
            self.convolutions = chainer.ChainList(
                *(
                    links.Convolution2D(size, out_size, 3, pad=1, initialW=he)
                    for size, out_size in zip(channels, channels[1:])
                )
            )
            self.fc = links.Linear(channels[-1], classes)
            self.normalizations = chainer.ChainList()
            if batch_normalization:
                for size in channels[1:]:
                    self.normalizations.append(links.BatchNormalization(size))

    def forward(self, x):
        """Returns the logits of a batch of images (n, channels, h, w)."""
        h = x
        for index, convolution in enumerate(self.convolutions):
            h = convolution(h)
            if len(self.normalizations):
                h = self.normalizations[index](h)
            h = functions.relu(h)
            if index in (1, 3):
                h = functions.max_pooling_2d(h, 2)
        return self.fc(functions.average(h, axis=(2, 3)))
