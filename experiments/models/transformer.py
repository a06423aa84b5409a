"""A small causal transformer (Vaswani et al. 2017, arXiv 1706.03762), for characters.

Each sublayer's input is normalized, and not the sum of its input and output (Xiong et al. 2020,
arXiv 2002.04745): such a one needs no warm-up.
"""

from experiments.models.blocks import Blocks

import chainer
from chainer import functions, links

# A weight of exactly 0 after the softmax, and a number of float16.
_MASKED = -1e4


class Transformer(chainer.Chain):
    """Embeddings of characters and of positions, blocks, a normalization and a linear layer.

    Args:
        classes (int): Number of characters there are.
        length (int): The most positions of a text.
        layers (int): Number of blocks.
        units (int): Units of a position.
        heads (int): Number of attention heads; it divides the units.
    """

    def __init__(self, classes, length, layers=2, units=64, heads=4):
        super().__init__()
        small = chainer.initializers.Normal(0.02)
        with self.init_scope():
            self.characters = links.EmbedID(classes, units, initialW=small)
            self.positions = links.EmbedID(length, units, initialW=small)
            self.blocks = Blocks(*(Block(units, heads) for _ in range(layers)))
            self.norm = links.LayerNormalization(units)
            self.fc = links.Linear(units, classes)

    def forward(self, x):
        """Returns the logits (n, classes, length) of what follows each character.

        Args:
            x (:ref:`ndarray`): Characters by their classes, int32 (n, length).
        """
        positions = self.xp.arange(x.shape[1], dtype=x.dtype)
        h = self.characters(x) + self.positions(positions)[None]
        h = self.blocks(h)
        y = self.fc(_normalized(self.norm, h), n_batch_axes=2)
        return functions.transpose(y, (0, 2, 1))


class Block(chainer.Chain):
    """Causal self-attention and two linear layers, each added to what it is given.

    Args:
        units (int): Units of a position.
        heads (int): Number of attention heads; it divides the units.
    """

    def __init__(self, units, heads):
        super().__init__()
        self.heads = heads
        with self.init_scope():
            self.norm1 = links.LayerNormalization(units)
            self.query = links.Linear(units, units)
            # Without a bias, which would add the same to all scores of a query: its gradient is 0.
            self.key = links.Linear(units, units, nobias=True)
            self.value = links.Linear(units, units)
            self.out = links.Linear(units, units)
            self.norm2 = links.LayerNormalization(units)
            self.fc1 = links.Linear(units, 4 * units, initialW=chainer.initializers.HeNormal())
            self.fc2 = links.Linear(4 * units, units)

    def forward(self, h):
        """Returns what (n, length, units) becomes, of the same shape."""
        x = _normalized(self.norm1, h)
        q, k, v = (self._by_head(layer(x, 2)) for layer in (self.query, self.key, self.value))
        h = h + self.out(self._joined(attention(q, k, v)), n_batch_axes=2)
        x = _normalized(self.norm2, h)
        return h + self.fc2(functions.relu(self.fc1(x, n_batch_axes=2)), n_batch_axes=2)

    def _by_head(self, x):
        n, length, units = x.shape
        x = functions.reshape(x, (n, length, self.heads, units // self.heads))
        return functions.transpose(x, (0, 2, 1, 3))

    def _joined(self, x):
        n, heads, length, units = x.shape
        return functions.reshape(functions.transpose(x, (0, 2, 1, 3)), (n, length, heads * units))


def attention(q, k, v):
    """Returns for each position the mean of the values up to it, weighted by query and keys.

    Queries, keys and values are (n, heads, length, units), and so is the result, in their dtype;
    the softmax is taken in float32.
    """
    # Scaled before the product, where float16 then has more room.
    scores = functions.cast(_product(q * q.shape[-1] ** -0.5, k, transb=True), 'float32')
    xp = chainer.backend.get_array_module(scores)
    past = xp.broadcast_to(xp.tri(scores.shape[-1], dtype=bool), scores.shape)
    scores = functions.where(past, scores, xp.full(scores.shape, _MASKED, scores.dtype))
    return _product(functions.cast(functions.softmax(scores, axis=3), v.dtype), v)


def _product(a, b, **transposed):
    """Multiplies matrices with a tensor core's arithmetic: sums in float32, rounded in the end.

    NumPy's own product in float16 rounds every sum, and takes many times as long.
    """
    y = functions.matmul(functions.cast(a, 'float32'), functions.cast(b, 'float32'), **transposed)
    return functions.cast(y, a.dtype)


def _normalized(norm, h):
    """Normalizes each position; Chainer's layer normalization takes (examples, units) alone."""
    return functions.reshape(norm(functions.reshape(h, (-1, h.shape[-1]))), h.shape)
