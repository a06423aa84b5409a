"""Every layer that is converted: Chainer's in float32, within the rounding bound in float16."""

import copy
import dataclasses
import pickle

import chainerlp
from chainerlp import functions, policies
from chainerlp.functions import ScaledFunction
from tests.leaf_scales import leaf_scales

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import serializers


def apply(link, inputs):
    return [link(*inputs)]


def apply_reversed(link, inputs):
    return [link(*reversed(inputs))]


def apply_in_steps(link, inputs):
    return [link(x) for x in inputs]


def apply_stateless(link, inputs):
    state, outputs = (None, None), []
    for x in inputs:
        state = link(*state, x)
        outputs.append(state[1])
    return outputs


def apply_to_sequences(link, inputs):
    *states, ys = link(*[None] * link.n_cells, list(inputs))
    return [*states, *ys]


@dataclasses.dataclass
class Layer:
    """A layer, how to call it, and the shapes of its inputs.

    ``roundings``: how many roundings to float16 there are on the longest way from the gradient of
    the output to that of an input or a weight, forward and backward. With 1, everything is one
    product.
    """

    make: object
    shapes: list
    apply: object = apply
    roundings: int = 1


def images(*size, n=3, channels=4):
    return [(n, channels) + size]


STEPS = [(3, 4)] * 3
SEQUENCES = [(2, 4), (4, 4), (1, 4)]


# On the way through a time step five roundings follow each other: a product, the sum of two, a
# gate, the product of gates, the cell; as many on the way back.
A_STEP = 10


def n_step(kind, layers=2, dropout=0.0):
    # The longest way goes through the 4 steps of the longest sequence and one of the other layer.
    return Layer(lambda: kind(layers, 4, 5, dropout), SEQUENCES, apply_to_sequences, 5 * A_STEP)


LAYERS = {
    'Linear': Layer(lambda: L.Linear(7, 5), [(4, 7)]),
    'Linear, no bias': Layer(lambda: L.Linear(7, 5, nobias=True), [(4, 7)]),
    'Convolution2D': Layer(lambda: L.Convolution2D(4, 6, (3, 2)), images(7, 6)),
    'Convolution2D, all': Layer(
        lambda: L.Convolution2D(4, 6, 3, stride=(2, 1), pad=1, dilate=(1, 2), groups=2),
        images(9, 8),
    ),
    'Convolution1D': Layer(lambda: L.Convolution1D(4, 6, 3), images(9)),
    'Convolution1D, all': Layer(
        lambda: L.Convolution1D(4, 6, 3, 2, 1, nobias=True, dilate=2, groups=2), images(11)
    ),
    'Convolution1D, cover all': Layer(
        lambda: L.Convolution1D(4, 6, 3, 2, cover_all=True), images(10)
    ),
    'Convolution3D': Layer(lambda: L.Convolution3D(4, 6, 2), images(4, 3, 4)),
    'Convolution3D, all': Layer(
        lambda: L.Convolution3D(4, 6, (2, 3, 2), (1, 2, 1), (0, 1, 1), dilate=(2, 1, 1), groups=2),
        images(5, 4, 4),
    ),
    'ConvolutionND': Layer(lambda: L.ConvolutionND(4, 2, 3, 2), images(3, 3, 3, 3, channels=2)),
    'Deconvolution2D': Layer(lambda: L.Deconvolution2D(4, 6, (3, 2)), images(5, 6)),
    'Deconvolution2D, all': Layer(
        lambda: L.Deconvolution2D(4, 6, 3, (2, 1), 1, True, dilate=(1, 2), groups=2), images(4, 5)
    ),
    'Deconvolution2D, outsize': Layer(
        lambda: L.Deconvolution2D(4, 6, 3, 2, 1, outsize=(8, 9)), images(4, 5)
    ),
    'Deconvolution2D, cover all': Layer(
        lambda: L.Deconvolution2D(4, 6, 3, 2, outsize=(8, 10)), images(4, 5)
    ),
    'Deconvolution1D': Layer(lambda: L.Deconvolution1D(4, 6, 3), images(7)),
    'Deconvolution1D, all': Layer(
        lambda: L.Deconvolution1D(4, 6, 3, 2, 1, dilate=2, groups=2), images(7)
    ),
    'Deconvolution1D, cover all': Layer(
        lambda: L.Deconvolution1D(4, 6, 3, 2, outsize=(10,)), images(5)
    ),
    'Deconvolution3D': Layer(lambda: L.Deconvolution3D(4, 6, 2), images(3, 2, 3)),
    'Deconvolution3D, all': Layer(
        lambda: L.Deconvolution3D(4, 6, (2, 3, 2), (1, 2, 1), (0, 1, 1), groups=2), images(3, 2, 4)
    ),
    'DeconvolutionND': Layer(lambda: L.DeconvolutionND(4, 2, 3, 2), images(2, 2, 2, 2, channels=2)),
    'DepthwiseConvolution2D': Layer(lambda: L.DepthwiseConvolution2D(4, 3, 3), images(6, 7)),
    'DepthwiseConvolution2D, all': Layer(
        lambda: L.DepthwiseConvolution2D(4, 2, 3, 2, 1, nobias=True), images(6, 7)
    ),
    'DilatedConvolution2D': Layer(
        lambda: L.DilatedConvolution2D(4, 6, 3, stride=1, pad=2, dilate=2), images(7, 6)
    ),
    'LocalConvolution2D': Layer(lambda: L.LocalConvolution2D(4, 6, (6, 5), 3), images(6, 5)),
    'LocalConvolution2D, no bias': Layer(
        lambda: L.LocalConvolution2D(4, 6, (6, 5), 2, nobias=True), images(6, 5)
    ),
    'Bilinear': Layer(lambda: L.Bilinear(4, 5, 6), [(3, 4), (3, 5)]),
    'Bilinear, no bias': Layer(lambda: L.Bilinear(4, 6, 5, True), [(3, 4), (3, 2, 3)]),
    # Samples and their gradients; the offsets and theirs; the sum of both ways.
    'DeformableConvolution2D': Layer(
        lambda: L.DeformableConvolution2D(3, 4, 3, stride=1, pad=1),
        images(6, 5, channels=3),
        roundings=8,
    ),
    'DeformableConvolution2D, all': Layer(
        lambda: L.DeformableConvolution2D(3, 4, (3, 2), (2, 1), (1, 0), deform_nobias=True),
        images(7, 5, channels=3),
        roundings=8,
    ),
    'LSTM': Layer(lambda: L.LSTM(4, 5), STEPS, apply_in_steps, 3 * A_STEP),
    'StatelessLSTM': Layer(lambda: L.StatelessLSTM(4, 5), STEPS, apply_stateless, 3 * A_STEP),
    'StatefulGRU': Layer(lambda: L.StatefulGRU(4, 5), STEPS, apply_in_steps, 3 * A_STEP),
    'StatefulPeepholeLSTM': Layer(lambda: L.StatefulPeepholeLSTM(4, 5), STEPS, apply_in_steps, 60),
    'StatelessMGU': Layer(lambda: L.StatelessMGU(4, 5), [(3, 4), (3, 5)], apply_reversed, A_STEP),
    'Maxout': Layer(lambda: L.Maxout(4, 5, 2), STEPS[:1], apply, 4),
    'MLPConvolution2D': Layer(
        lambda: L.MLPConvolution2D(4, (5, 6), 3, activation=F.tanh), images(5, 5), apply, 8
    ),
    'NStepLSTM': n_step(L.NStepLSTM),
    'NStepBiLSTM': n_step(L.NStepBiLSTM),
    'NStepGRU': n_step(L.NStepGRU),
    'NStepBiGRU': n_step(L.NStepBiGRU),
    'NStepRNNTanh': n_step(L.NStepRNNTanh),
    'NStepBiRNNTanh': n_step(L.NStepBiRNNTanh),
    'NStepRNNReLU': n_step(L.NStepRNNReLU),
    'NStepBiRNNReLU': n_step(L.NStepBiRNNReLU),
}
every_layer = pytest.mark.parametrize('name', LAYERS)


def half(seed, *shape, magnitude=1.0):
    """Normal numbers that float16 has, in float64."""
    values = numpy.random.RandomState(seed).standard_normal(shape) * magnitude
    return values.astype(numpy.float16).astype(numpy.float64)


def make(name, dtype, magnitude=0.5, change=lambda array: array):
    """Returns the layer in a dtype, its weights of a magnitude, drawn from one seed."""
    with chainer.using_config('dtype', dtype):
        link = LAYERS[name].make()
    for seed, (_, param) in enumerate(sorted(link.namedparams())):
        values = change(half(seed, *param.shape, magnitude=magnitude if param.ndim > 1 else 0.5))
        param.array = values.astype(dtype)
    return link


@dataclasses.dataclass
class Result:
    y: object
    gradients: dict  # true ones, by the path of the parameter or the number of the input
    scales: dict


def run(name, link, dtype, backward=chainer.Variable.backward, magnitude=1.0, change=None):
    """Returns outputs and gradients for a fixed gradient of the outputs."""
    change = change or (lambda array: array)
    layer = LAYERS[name]
    inputs = [
        chainer.Variable(change(half(100 + i, *shape)).astype(dtype))
        for i, shape in enumerate(layer.shapes)
    ]
    numpy.random.seed(0)  # of dropout
    outputs = [y for y in layer.apply(link, inputs) if y is not None]
    y = outputs[0] if len(outputs) == 1 else F.concat([y.reshape(-1) for y in outputs], axis=0)
    integers = numpy.random.RandomState(200).randint(-16, 17, size=y.shape)
    y.grad = change(integers * magnitude).astype(dtype)
    link.cleargrads()
    with leaf_scales() as scales:
        backward(y)
    holders = {**dict(enumerate(inputs)), **dict(link.namedparams())}
    return Result(
        y.array,
        {key: chainerlp.unscaled_grad(v) for key, v in holders.items() if v.grad is not None},
        {key: scales.get(id(v), 1.0) for key, v in holders.items()},
    )


def assert_identical(actual, expected):
    numpy.testing.assert_array_equal(actual.y, expected.y)
    assert actual.y.dtype == expected.y.dtype
    assert actual.gradients.keys() == expected.gradients.keys()
    for key in expected.gradients:
        assert actual.gradients[key].dtype == expected.gradients[key].dtype
        numpy.testing.assert_array_equal(actual.gradients[key], expected.gradients[key])


@every_layer
@pytest.mark.parametrize('backward', [chainer.Variable.backward, chainerlp.backward])
def test_in_float32_it_is_chainers_bit_for_bit(name, backward):
    expected = run(name, make(name, numpy.float32), numpy.float32)
    converted = chainerlp.convert(make(name, numpy.float32), policies.Amax())
    assert_identical(run(name, converted, numpy.float32, backward), expected)


@pytest.mark.parametrize('kind', [L.NStepLSTM, L.NStepBiGRU])
def test_dropout_between_layers_is_chainers(kind, monkeypatch):
    monkeypatch.setitem(LAYERS, 'dropout', n_step(kind, dropout=0.5))
    expected = run('dropout', make('dropout', numpy.float32), numpy.float32)
    converted = chainerlp.convert(make('dropout', numpy.float32), policies.Amax())
    assert_identical(run('dropout', converted, numpy.float32), expected)
    converted = chainerlp.convert(make('dropout', numpy.float16), policies.Amax())
    in_half = run('dropout', converted, numpy.float16, chainerlp.backward)
    assert_close(in_half, expected, 5 * A_STEP)


def magnitudes_of(name):
    """Returns magnitudes of weights and of the gradient of y, whose product float16 loses.

    A layer that is one product is given multiples of the smallest subnormal. What comes before the
    first product in others rounds without a scale, so they are given 2^8 times as much; weights
    are smaller instead.
    """
    if LAYERS[name].roundings == 1:
        return 2.0**-10, 2.0**-24
    return 2.0**-18, 2.0**-16


def assert_close(actual, expected, roundings, magnitudes=None):
    """Asserts the bound on what rounding to float16 may do.

    A rounding changes a number by 2^-11 of it, or by half of the smallest subnormal, 2^-25 over the
    scale that it carries. If everything is one product, both count once; besides, float32 sums of
    up to 1000 products err by 1000 * 2^-24 of the sum of magnitudes, on either side. If roundings
    follow each other, a result is a sum over ways from the output, each of which errs by as many
    times 2^-11 of itself; what a way amounts to is bounded by the largest entry.
    """
    assert actual.gradients.keys() == expected.gradients.keys()
    smallest_scale = min(actual.scales.values())
    for key, exact in expected.gradients.items():
        error = numpy.abs(actual.gradients[key] - exact.astype(numpy.float64))
        if magnitudes is not None:
            absolute = 2.0**-24 / actual.scales[key]
            sums = 2 * 1000 * 2.0**-24 * magnitudes.gradients[key]
            bound = numpy.abs(exact) * 2.0**-11 + absolute + sums
        else:
            largest = numpy.abs(exact).max()
            bound = roundings * (2.0**-11 * largest + 2.0**-24 / smallest_scale)
        assert (error <= bound).all(), key


@every_layer
def test_in_float16_gradients_survive_to_within_the_rounding_bound(name):
    weights, tiny = magnitudes_of(name)
    expected = run(name, make(name, numpy.float32, weights), numpy.float32, magnitude=tiny)
    magnitudes = None
    if LAYERS[name].roundings == 1:
        positive = make(name, numpy.float32, weights, numpy.abs)
        magnitudes = run(name, positive, numpy.float32, magnitude=tiny, change=numpy.abs)

    converted = chainerlp.convert(make(name, numpy.float16, weights), policies.Amax())
    unscaled = run(name, converted, numpy.float16, magnitude=tiny)
    present = expected.gradients[0] != 0
    assert (unscaled.gradients[0][present] == 0).mean() >= 0.5

    converted = chainerlp.convert(make(name, numpy.float16, weights), policies.Amax())
    scaled = run(name, converted, numpy.float16, chainerlp.backward, magnitude=tiny)
    assert (scaled.gradients[0][present] == 0).mean() < 0.01
    assert_close(scaled, expected, LAYERS[name].roundings, magnitudes)


@every_layer
@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_it_can_be_copied_and_pickled(name, duplicate):
    link = chainerlp.convert(make(name, numpy.float16), policies.Amax())
    twin = duplicate(link)
    expected = run(name, link, numpy.float16, chainerlp.backward)
    twin = run(name, twin, numpy.float16, chainerlp.backward)
    assert_identical(twin, expected)
    assert twin.scales == expected.scales


@every_layer
def test_copies_by_chainer_choose_scales_of_their_own(name):
    link = chainerlp.convert(make(name, numpy.float16), policies.Amax())
    twin = link.copy('copy')
    assert [type(a) for a in twin.links()] == [type(a) for a in link.links()]
    scales = [[a.layer_scale for a in x.links() if hasattr(a, 'layer_scale')] for x in (link, twin)]
    assert len(scales[0]) == len(scales[1]) > 0
    assert not {id(s) for s in scales[0]} & {id(s) for s in scales[1]}
    assert_identical(run(name, twin, numpy.float16), run(name, link.copy(), numpy.float16))


@every_layer
def test_restore_leaves_it_as_it_was(name):
    link = make(name, numpy.float32)
    before = {path: (type(part), dict(vars(part))) for path, part in link.namedlinks()}
    params = dict(link.namedparams())
    chainerlp.convert(link, policies.Adaptive())
    assert dict(link.namedparams()) == params
    assert [path for path, _ in link.namedlinks()] == list(before)
    chainerlp.restore(link)
    for path, part in link.namedlinks():
        kind, attributes = before[path]
        assert type(part) is kind
        assert vars(part).keys() == attributes.keys()
        assert all(vars(part)[key] is attributes[key] for key in attributes)


@every_layer
@pytest.mark.parametrize('converted_saves', [True, False])
def test_a_snapshot_of_either_loads_into_the_other(name, converted_saves, tmp_path):
    source, target = make(name, numpy.float32), LAYERS[name].make()
    chainerlp.convert(source if converted_saves else target, policies.Adaptive())
    serializers.save_npz(tmp_path / 'link.npz', source)
    serializers.load_npz(tmp_path / 'link.npz', target)
    assert_identical(
        run(name, chainerlp.restore(target), numpy.float32),
        run(name, chainerlp.restore(source), numpy.float32),
    )


class Spy(policies.Policy):
    """A policy that notes what it is shown."""

    interval = 1
    scales_weights = False

    def __init__(self):
        self.shown = []

    def scale(self, gy, W, total_scale=1.0, *, terms=None, product=None, backoff=1.0):
        self.shown.append((gy, W, terms, product))
        return 1.0


FULL = [  # the kernel fits into the output, and every position is visited
    name
    for name, layer in LAYERS.items()
    if layer.roundings == 1 and ', all' not in name and ', cover' not in name
]


@pytest.mark.parametrize('name', FULL)
def test_terms_are_the_products_summed_into_an_element_of_gx(name):
    spy = Spy()
    link = chainerlp.convert(make(name, numpy.float16, change=numpy.ones_like), spy)
    run(name, link, numpy.float16, chainerlp.backward, change=numpy.ones_like)
    assert len(spy.shown) == len(LAYERS[name].shapes)
    for gy, W, terms, product in spy.shown:
        assert product.max() == terms
        assert W.shape[0] == gy.shape[1]


class WindowSpy(Spy):
    """A spy that asks for the window as well."""

    needs_window = True

    def scale(self, gy, W, total_scale=1.0, *, window, product, **context):
        self.shown.append((gy, window, product))
        return 1.0


@pytest.mark.parametrize('name', [n for n, layer in LAYERS.items() if layer.roundings == 1])
def test_the_window_is_of_the_positions_that_are_summed_into_an_element_of_gx(name):
    spy = WindowSpy()
    link = chainerlp.convert(make(name, numpy.float16, change=numpy.ones_like), spy)
    run(name, link, numpy.float16, chainerlp.backward, change=numpy.ones_like)
    for gy, window, product in spy.shown:
        if window is None:
            assert gy.ndim == 2 or gy.ndim > 5
        else:  # of ones, gx is the number of terms
            of_ones = window.sums(numpy.ones((1, 1, *gy.shape[2:])))
            expected = of_ones * (gy.shape[1] // window.groups)
            numpy.testing.assert_array_equal(product, numpy.broadcast_to(expected, product.shape))


class OwnScale(policies.PerSample):
    """A policy with a scale of its own, which asks the one it is made of."""

    def scale(self, gy, W, total_scale=1.0, *, window=None, **context):
        assert window is not None
        return super().scale(gy, W, total_scale, window=window, **context)


def test_the_window_reaches_a_scale_of_ones_own():
    name = 'Convolution2D'
    links = [
        chainerlp.convert(make(name, numpy.float16), p()) for p in (OwnScale, policies.PerSample)
    ]
    own, given = (run(name, link, numpy.float16, chainerlp.backward) for link in links)
    assert_identical(own, given)


@every_layer
@pytest.mark.parametrize('policy', [policies.ElementWiseRange(), policies.Adaptive()], ids=repr)
def test_policies_are_shown_the_weight_with_the_outputs_first(name, policy):
    weights, tiny = magnitudes_of(name)
    link = chainerlp.convert(make(name, numpy.float16, weights), policy)
    result = run(name, link, numpy.float16, chainerlp.backward, magnitude=tiny)
    assert max(result.scales.values()) > 1


class Hook(chainer.FunctionHook):
    """Compares the product that is measured with what a function passed on."""

    def __init__(self, dtype):
        self.dtype = dtype
        self.seen = 0

    def backward_postprocess(self, function, in_data, out_grad):
        if functions.rounds_gradient(function):
            product = functions.gradient_to_round(function, in_data, out_grad[0]).product()
            assert product.shape == in_data[0].shape and product.dtype == numpy.float32
            self.products.append(product)
            self.seen += isinstance(function, ScaledFunction)

    def __enter__(self):
        self.products = []
        return super().__enter__()


@pytest.mark.parametrize('name', [name for name in LAYERS if LAYERS[name].roundings == 1])
@pytest.mark.parametrize('is_converted', [True, False])
def test_its_data_gradient_can_be_measured(name, is_converted):
    link = make(name, numpy.float32)
    if is_converted:
        chainerlp.convert(link, policies.Adaptive())
    with Hook(numpy.float32) as hook:
        result = run(name, link, numpy.float32)
    assert hook.seen == is_converted
    (product,) = hook.products
    scale = numpy.abs(result.gradients[0]).max()
    numpy.testing.assert_allclose(product, result.gradients[0], rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize('name', [name for name in LAYERS if LAYERS[name].roundings == 1])
def test_an_empty_batch_has_an_empty_output_and_zero_weight_gradients(name):
    link = chainerlp.convert(make(name, numpy.float16), policies.Measured())
    inputs = [
        chainer.Variable(numpy.zeros((0, *shape[1:]), numpy.float16))
        for shape in LAYERS[name].shapes
    ]
    y = link(*inputs)
    y.grad = numpy.zeros_like(y.array)
    link.cleargrads()
    chainerlp.backward(y)
    assert y.shape[0] == 0
    assert [x.grad.shape for x in inputs] == [x.shape for x in inputs]
    assert not any(param.grad.any() for param in link.params())


LAZY = {
    'Linear': lambda: L.Linear(None, 5),
    'Convolution2D': lambda: L.Convolution2D(None, 6, (3, 2)),
    'Convolution1D': lambda: L.Convolution1D(None, 6, 3),
    'Convolution3D': lambda: L.Convolution3D(None, 6, 2),
    'ConvolutionND': lambda: L.ConvolutionND(4, None, 3, 2),
    'Deconvolution2D': lambda: L.Deconvolution2D(None, 6, (3, 2)),
    'Deconvolution1D': lambda: L.Deconvolution1D(None, 6, 3),
    'Deconvolution3D': lambda: L.Deconvolution3D(None, 6, 2),
    'DeconvolutionND': lambda: L.DeconvolutionND(4, None, 3, 2),
    'DepthwiseConvolution2D': lambda: L.DepthwiseConvolution2D(None, 3, 3),
    'DilatedConvolution2D': lambda: L.DilatedConvolution2D(None, 6, 3, stride=1, pad=2, dilate=2),
    'LocalConvolution2D': lambda: L.LocalConvolution2D(None, 6, None, 3),
    'DeformableConvolution2D': lambda: L.DeformableConvolution2D(None, 4, 3, stride=1, pad=1),
    'LSTM': lambda: L.LSTM(None, 5),
}


@pytest.mark.parametrize('name', LAZY)
def test_it_may_be_converted_before_its_input_size_is_known(name):
    link = chainerlp.convert(LAZY[name](), policies.Adaptive())
    inputs = [half(0, *shape).astype(numpy.float32) for shape in LAYERS[name].shapes]
    y = LAYERS[name].apply(link, inputs)[-1]
    expected = LAYERS[name].apply(make(name, numpy.float32), inputs)[-1]
    assert y.shape == expected.shape
    assert all(param.is_initialized for param in link.params())


def test_the_scales_of_an_n_step_rnn_are_part_of_a_snapshot(tmp_path):
    def prepared():
        return chainerlp.AdaptiveLossScaling(
            chainer.optimizers.SGD(0.0), policies.Amax(interval=100)
        ).setup(make('NStepBiLSTM', numpy.float16))

    source, target = prepared(), prepared()
    run('NStepBiLSTM', source.target, numpy.float16, chainerlp.backward, magnitude=2.0**-16)
    serializers.save_npz(tmp_path / 'optimizer.npz', source)
    serializers.load_npz(tmp_path / 'optimizer.npz', target)
    # At this magnitude other scales would be chosen, were they not kept.
    held = [
        run('NStepBiLSTM', o.target, numpy.float16, chainerlp.backward).scales[0]
        for o in (source, target, prepared())
    ]
    assert held[0] == held[1] != held[2]
