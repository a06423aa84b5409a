"""Stacked RNNs over sequences, whose data gradients are scaled.

Beside ``chainer.functions.n_step_lstm``, ``n_step_gru`` and ``n_step_rnn``. Each time step of each
layer and direction is two linear functions, that of the input and that of the hidden state. Calls
of its :class:`~chainerlp.layer_scale.LayerScale` are numbered so: 2t for the input at its step t,
2t + 1 for the hidden state. The weights of a layer are stacked once a pass.
"""

import functools
from collections.abc import Sequence
from typing import Optional

from chainerlp.functions.linear import scaled_linear
from chainerlp.layer_scale import LayerScale

import chainer
import chainer.functions as F
from chainer.functions.rnn.n_step_rnn import n_step_rnn_impl


class _Products:
    """The two linear functions of one layer and direction, all gates of each stacked."""

    def __init__(self, ws, bs, stack, layer_scale):
        half = len(ws) // 2
        # The weights, and what has been rounded of them: once for all steps.
        self._input = stack(ws[:half]), stack(bs[:half]), {}
        self._hidden = stack(ws[half:]), stack(bs[half:]), {}
        self._layer_scale = layer_scale

    def __call__(self, x, h):
        return tuple(
            scaled_linear(value, W, b, layer_scale=self._layer_scale, rounded_weights=rounded)
            for value, (W, b, rounded) in ((x, self._input), (h, self._hidden))
        )


def _one_after_the_other(arrays):
    return F.concat(arrays, axis=0)


def _interleaved_for_lstm(arrays):
    # F.lstm takes the four gates of unit 0, then those of unit 1 ...: cell, input, forget, output.
    # The weights are those of input, forget, cell, output.
    i, f, a, o = arrays
    gates = F.stack([a, i, f, o], axis=1)
    return gates.reshape((-1,) + gates.shape[2:])


def _lstm(x, h, c, products, _):
    from_x, from_h = products(x, h)
    c, h = F.lstm(c, from_x + from_h)
    return h, c


def _gru(x, h, c, products, _):
    from_x, from_h = (F.split_axis(y, 3, axis=1) for y in products(x, h))
    reset = F.sigmoid(from_x[0] + from_h[0])
    keep = F.sigmoid(from_x[1] + from_h[1])
    candidate = F.tanh(from_x[2] + reset * from_h[2])
    return (1 - keep) * candidate + keep * h, None


def _activated(activation, x, h, c, products, _):
    from_x, from_h = products(x, h)
    return activation(from_x + from_h), None


_CELLS = {
    'lstm': (_lstm, _interleaved_for_lstm),
    'gru': (_gru, _one_after_the_other),
    'tanh': (functools.partial(_activated, F.tanh), _one_after_the_other),
    'relu': (functools.partial(_activated, F.relu), _one_after_the_other),
}


def scaled_n_step_rnn(
    cell: str,
    n_layers: int,
    dropout_ratio: float,
    hx: chainer.Variable,
    cx: Optional[chainer.Variable],
    ws: Sequence[Sequence[chainer.Variable]],
    bs: Sequence[Sequence[chainer.Variable]],
    xs: Sequence[chainer.Variable],
    use_bi_direction: bool = False,
    layer_scales: Optional[Sequence[Optional[LayerScale]]] = None,
) -> tuple[chainer.Variable, Optional[chainer.Variable], list[chainer.Variable]]:
    """Stacked RNN over a batch of sequences, whose data gradients are scaled.

    Args:
        cell (str): ``'lstm'``, ``'gru'``, ``'tanh'`` or ``'relu'``.
        n_layers (int): Number of layers.
        dropout_ratio (float): Dropout ratio between layers.
        hx (~chainer.Variable): Initial hidden states (layers and directions, batch, units).
        cx (~chainer.Variable): Initial cell states of an LSTM, otherwise ``None``.
        ws (list of list of :class:`~chainer.Variable`): Weights, a list for each layer and
            direction, as in :func:`chainer.functions.n_step_lstm` and its like.
        bs (list of list of :class:`~chainer.Variable`): Biases, likewise.
        xs (list of :class:`~chainer.Variable`): The inputs of each time step (batch, in); the
            batch may only become smaller.
        use_bi_direction (bool): Whether there is a second direction.
        layer_scales (list of LayerScale): What chooses the scales of each layer and direction;
            ``None`` scales nothing.

    Returns:
        tuple: Last hidden states, last cell states (``None`` but for an LSTM), and a list of the
        last layer's hidden states at each time step.

    Raises:
        ValueError: If there is no such cell.
    """
    if cell not in _CELLS:
        raise ValueError(f'cell must be one of {", ".join(map(repr, _CELLS))}, not {cell!r}')
    function, stack = _CELLS[cell]
    if layer_scales is None:
        layer_scales = [None] * len(ws)
    products = [_Products(w, b, stack, scale) for w, b, scale in zip(ws, bs, layer_scales)]
    # Chainer's loop over layers, directions and time hands each layer's weights to the cell as it
    # is given them.
    return n_step_rnn_impl(
        function, n_layers, dropout_ratio, hx, cx, products, bs, xs, use_bi_direction
    )
