"""The uses of a layer's weights over time, each with a scale of its own."""

import chainerlp
from chainerlp import functions, policies
from chainerlp.links import ScaledNStepLSTM

import chainer
import chainer.functions as F
import numpy
import pytest


class Uses(chainer.FunctionHook):
    """Notes which use of which layer each scaled function is, in the backward pass."""

    def __enter__(self):
        self.seen = []
        return super().__enter__()

    def backward_postprocess(self, function, in_data, out_grad):
        if isinstance(function, functions.ScaledFunction):
            self.seen.append((id(function.layer_scale), function.call, in_data[0].shape[1]))


def sequences(*lengths):
    rng = numpy.random.RandomState(0)
    return [rng.standard_normal((length, 3)).astype(numpy.float16) for length in lengths]


def make():
    with chainer.using_config('dtype', chainer.mixed16):
        return ScaledNStepLSTM(2, 3, 5, 0.0, policy=policies.Amax())


def test_calls_alternate_between_input_and_hidden_state_over_time():
    link = make()
    _, _, ys = link(None, None, sequences(2, 3))
    with Uses() as uses:
        chainerlp.backward(F.sum(F.concat(ys, axis=0)))
    first = sorted(use[1:] for use in uses.seen if use[0] == id(link[0].layer_scale))
    assert first == [(0, 3), (1, 5), (2, 3), (3, 5), (4, 3), (5, 5)]
    second = sorted(use[1] for use in uses.seen if use[0] == id(link[1].layer_scale))
    assert second == [0, 1, 2, 3, 4, 5]


def test_in_another_batch_a_call_is_the_same_step():
    link = make()
    for lengths in ((4, 1), (2, 2)):
        _, _, ys = link(None, None, sequences(*lengths))
        with Uses() as uses:
            chainerlp.backward(F.sum(F.concat(ys, axis=0)))
        for _, call, size in (use for use in uses.seen if use[0] == id(link[0].layer_scale)):
            assert size == (3, 5)[call % 2]


def test_initial_states_get_gradients():
    link = make()
    hx, cx = (chainer.Variable(numpy.full((2, 2, 5), 0.5, numpy.float16)) for _ in range(2))
    _, _, ys = link(hx, cx, sequences(2, 3))
    chainerlp.backward(F.sum(F.concat(ys, axis=0)))
    for state in (hx, cx):
        assert state.grad.dtype == numpy.float32 and numpy.abs(state.grad).max() > 0


@pytest.mark.parametrize('is_first', [True, False])
def test_a_layer_that_is_restored_alone_scales_nothing(is_first):
    link = make()
    chainerlp.restore(link[0 if is_first else 1])
    _, _, ys = link(None, None, sequences(2, 3))
    with Uses() as uses:
        chainerlp.backward(F.sum(F.concat(ys, axis=0)))
    scaled = link[1 if is_first else 0]
    assert {use[0] for use in uses.seen} == {id(scaled.layer_scale), id(None)}


def test_an_unknown_cell_is_an_error():
    with pytest.raises(ValueError, match="cell must be one of 'lstm', 'gru', 'tanh', 'relu', not"):
        functions.scaled_n_step_rnn('elman', 1, 0.0, None, None, [], [], [])
