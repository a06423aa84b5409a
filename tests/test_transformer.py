"""A transformer trains without an overflow: where paths join there is room for what comes next."""

import chainerlp
from chainerlp import policies

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers

UNITS, LENGTH, WORDS = 32, 8, 16


class Block(chainer.Chain):
    """Attention and two layers for each position, each added to what it is given, normalized."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.query, self.key, self.value = (L.Linear(UNITS, UNITS) for _ in range(3))
            self.mixed, self.inner = L.Linear(UNITS, UNITS), L.Linear(UNITS, 2 * UNITS)
            self.outer = L.Linear(2 * UNITS, UNITS)
            self.norm1, self.norm2 = L.LayerNormalization(UNITS), L.LayerNormalization(UNITS)

    def forward(self, h):
        batch = len(h) // LENGTH
        q, k, v = (
            layer(h).reshape(batch, LENGTH, UNITS) for layer in (self.query, self.key, self.value)
        )
        weights = F.softmax(F.matmul(q, k, transb=True) * UNITS**-0.5, axis=2)
        mixed = F.matmul(weights, v).reshape(batch * LENGTH, UNITS)
        h = self.norm1(h + self.mixed(mixed))
        return self.norm2(h + self.outer(F.relu(self.inner(h))))


class Transformer(chainer.Chain):
    """Predicts words; its embeddings are small, as BERT's are, and normalized at once."""

    def __init__(self):
        super().__init__()
        small = chainer.initializers.Normal(0.02)
        with self.init_scope():
            self.words = L.EmbedID(WORDS, UNITS, initialW=small)
            self.places = L.EmbedID(LENGTH, UNITS, initialW=small)
            self.norm = L.LayerNormalization(UNITS)
            self.blocks = Block().repeat(4)
            self.out = L.Linear(UNITS, WORDS)

    def forward(self, words, t):
        h = self.words(words) + F.broadcast_to(
            self.places(numpy.arange(LENGTH))[None], (*words.shape, UNITS)
        )
        h = self.norm(h.reshape(-1, UNITS))
        return F.softmax_cross_entropy(self.out(self.blocks(h)), t.ravel())


def train(dtype, policy=None, updates=60):
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        model = Transformer()
    optimizer = optimizers.Adam(2e-3)
    if policy is not None:
        optimizer = chainerlp.AdaptiveLossScaling(optimizer, policy)
    optimizer.setup(model)
    rng = numpy.random.RandomState(1)
    losses = []

    def loss(words):
        losses.append(model(words, words[:, ::-1]))
        return losses[-1]

    for _ in range(updates):
        optimizer.update(loss, rng.randint(0, WORDS, (16, LENGTH)).astype('i'))
    return optimizer, [float(loss.array) for loss in losses]


@pytest.mark.parametrize('policy', [policies.Adaptive(), policies.Amax(), policies.Measured()])
def test_no_update_is_skipped_and_the_loss_falls_as_in_float32(policy):
    optimizer, losses = train(chainer.mixed16, policy)
    _, expected = train(numpy.float32)
    assert optimizer.skipped == 0
    assert losses[-1] < 0.8 * losses[0]
    # Trainings in different arithmetics part; their losses fall alike.
    assert abs(numpy.mean(losses[-10:]) - numpy.mean(expected[-10:])) < 0.1 * expected[0]
