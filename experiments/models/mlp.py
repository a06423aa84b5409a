"""A multilayer perceptron, as deep as one likes."""

import math

import chainer
from chainer import functions, links


class MLP(chainer.Chain):
    """Linear layers with ReLU in between; weights after He et al. (2015), biases 0.

    Its layers are ``fc1``, ``fc2``, ... from input to output. It computes in the dtype that
    Chainer is configured for when it is built.

    Args:
        in_size (int): Number of features.
        units (int): Units of every layer but the last.
        classes (int): Units of the last layer.
        layers (int): Number of linear layers.
    """

    def __init__(self, in_size, units, classes, layers):
        super().__init__()
        self._names = [f'fc{index}' for index in range(1, layers + 1)]
        sizes = [in_size] + [units] * (layers - 1) + [classes]
        he = chainer.initializers.HeNormal()
        with self.init_scope():
            for name, size, out_size in zip(self._names, sizes, sizes[1:]):
                setattr(self, name, links.Linear(size, out_size, initialW=he))

    def forward(self, x):
        """Returns the logits of a batch of features, of whatever shape."""
        first, *others = (self[name] for name in self._names)
        h = first(functions.reshape(x, (len(x), -1)))
        for layer in others:
            h = layer(functions.relu(h))
        return h


def build(section, data):
    """Builds an MLP.

    Args:
        section (experiments.config.MLP): The config.
        data (experiments.data.Data): What it is to be trained on.

    Returns:
        MLP: The model.
    """
    return MLP(math.prod(data.shape), section.units, data.classes, section.layers)
