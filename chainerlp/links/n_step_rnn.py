"""Links of stacked RNNs whose data gradients are scaled; beside ``chainer.links.NStepLSTM``.

A layer of the paper is here the weights of one layer and direction: a child link, with a scale for
each of its uses over time; see :mod:`chainerlp.functions.n_step_rnn`.
"""

from chainerlp import policies
from chainerlp.functions import LayerScale, scaled_n_step_rnn
from chainerlp.links.scaled_link import ScaledLink

import chainer
import numpy
from chainer import links


class ScaledNStepLayer(ScaledLink, chainer.Link):
    """The link that holds the weights of one layer and direction."""


class ScaledNStepRNN:
    """Mixed in before one of Chainer's links of stacked RNNs.

    In float16 the recurrence is computed step by step, by cuDNN neither forward nor backward;
    otherwise by Chainer's function.

    Args:
        policy: One of :mod:`chainerlp.policies`; the paper's by default.
    """

    _scaled_cell = None

    def __init__(self, *args, policy=None, **kwargs):
        super().__init__(*args, **kwargs)
        convert_layers(self)
        for layer in self:
            layer.layer_scale = LayerScale(policies.Adaptive() if policy is None else policy)

    def rnn(self, n_layers, dropout_ratio, *args):
        """Applies the layers to sequences of descending length, transposed."""
        *states, ws, bs, xs = args
        if xs[0].dtype != numpy.float16:
            return super().rnn(n_layers, dropout_ratio, *args)
        hx, cx = states if self.n_cells == 2 else (*states, None)
        hy, cy, ys = scaled_n_step_rnn(
            self._scaled_cell,
            n_layers,
            dropout_ratio,
            hx,
            cx,
            ws,
            bs,
            xs,
            self.use_bi_direction,
            [getattr(layer, 'layer_scale', None) for layer in self],
        )
        return (hy, ys) if cx is None else (hy, cy, ys)


def convert_layers(rnn):
    """Turns the links that hold the weights of a :class:`ScaledNStepRNN` into scaled ones."""
    for layer in rnn:
        if type(layer) is chainer.Link:
            layer.__class__ = ScaledNStepLayer


class ScaledNStepLSTM(ScaledNStepRNN, links.NStepLSTM):
    """:class:`chainer.links.NStepLSTM` with scaled data gradients."""

    _scaled_cell = 'lstm'


class ScaledNStepBiLSTM(ScaledNStepRNN, links.NStepBiLSTM):
    """:class:`chainer.links.NStepBiLSTM` with scaled data gradients."""

    _scaled_cell = 'lstm'


class ScaledNStepGRU(ScaledNStepRNN, links.NStepGRU):
    """:class:`chainer.links.NStepGRU` with scaled data gradients."""

    _scaled_cell = 'gru'


class ScaledNStepBiGRU(ScaledNStepRNN, links.NStepBiGRU):
    """:class:`chainer.links.NStepBiGRU` with scaled data gradients."""

    _scaled_cell = 'gru'


class ScaledNStepRNNTanh(ScaledNStepRNN, links.NStepRNNTanh):
    """:class:`chainer.links.NStepRNNTanh` with scaled data gradients."""

    _scaled_cell = 'tanh'


class ScaledNStepBiRNNTanh(ScaledNStepRNN, links.NStepBiRNNTanh):
    """:class:`chainer.links.NStepBiRNNTanh` with scaled data gradients."""

    _scaled_cell = 'tanh'


class ScaledNStepRNNReLU(ScaledNStepRNN, links.NStepRNNReLU):
    """:class:`chainer.links.NStepRNNReLU` with scaled data gradients."""

    _scaled_cell = 'relu'


class ScaledNStepBiRNNReLU(ScaledNStepRNN, links.NStepBiRNNReLU):
    """:class:`chainer.links.NStepBiRNNReLU` with scaled data gradients."""

    _scaled_cell = 'relu'
