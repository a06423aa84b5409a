"""The pass that carries a total scale beside every gradient, on models not made for it."""

import chainerlp
from chainerlp import backprop, policies
from tests.leaf_scales import leaf_scales

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest


class Swish(chainer.FunctionNode):
    """A user's own function: x sigmoid(βx), which knows nothing of scales."""

    def forward(self, inputs):
        self.retain_inputs((0,))
        (x,) = inputs
        return ((x / (1 + numpy.exp(-x))).astype(x.dtype),)

    def backward(self, indexes, grad_outputs):
        (x,) = self.get_retained_inputs()
        sigmoid = F.sigmoid(x)
        return (grad_outputs[0] * (sigmoid + x * sigmoid * (1 - sigmoid)),)


class Everything(chainer.Chain):
    """Residual sums, a concat, a link used twice, dropout, batch normalization, pooling."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(3, 8, 3, pad=1)
            self.conv2 = L.Convolution2D(8, 8, 3, pad=1)
            self.norm = L.BatchNormalization(8)
            self.twice = L.Convolution2D(8, 8, 3, pad=1, groups=2)
            self.side = L.Convolution2D(8, 4, 1)
            self.fc1 = L.Linear(12 * 16, 32)
            self.fc2 = L.Linear(32, 10)

    def forward(self, x):
        h = F.relu(self.conv1(x))
        h = h + F.relu(self.norm(self.conv2(h)))
        h = h + F.relu(self.twice(F.relu(self.twice(h))))
        h = F.concat((F.max_pooling_2d(h, 2), F.average_pooling_2d(self.side(h), 2)))
        (h,) = Swish().apply((self.fc1(F.dropout(h, 0.2)),))
        return self.fc2(h)


def sixteen_bit_model():
    """Returns the model in mixed16, and in float32 with the very same parameters."""
    pair = []
    for dtype in (chainer.mixed16, numpy.float32):
        numpy.random.seed(0)
        with chainer.using_config('dtype', dtype):
            pair.append(Everything())
    half, single = pair
    for (_, h), (_, s) in zip(half.namedparams(), single.namedparams()):
        s.array[...] = h.array
    return half, single


def true_gradients(model, loss_factor, backward):
    rng = numpy.random.RandomState(1)
    dtype = model.conv1.W.dtype
    x = rng.standard_normal((16, 3, 8, 8)).astype(numpy.float16).astype(dtype)
    t = rng.randint(0, 10, 16).astype('i')
    numpy.random.seed(2)  # for dropout
    loss = F.softmax_cross_entropy(F.cast(model(x), 'float32'), t) * loss_factor
    model.cleargrads()
    backward(loss)
    # What batch normalization takes out again gets no gradient: its bias is rounding noise.
    return {
        path: chainerlp.unscaled_grad(param)
        for path, param in model.namedparams()
        if path != '/conv2/b'
    }


def plain(loss):
    loss.backward()


def relative_l2(actual, expected):
    return numpy.mean(
        [
            numpy.linalg.norm(actual[path] - expected[path]) / numpy.linalg.norm(expected[path])
            for path in expected
        ]
    )


# Brings the gradients to the magnitudes at which float16 loses them, as late in training.
LOSS_FACTOR = 2.0**-14


@pytest.mark.parametrize(
    'policy',
    [policies.Adaptive(), policies.Amax(), policies.Measured(), policies.Adaptive(interval=5)],
    ids=str,
)
def test_gradients_are_those_of_float32_where_unscaled_float16_loses_them(policy):
    half, single = sixteen_bit_model()
    expected = true_gradients(single, LOSS_FACTOR, plain)
    chainerlp.convert(half, policies.Fixed(1))
    assert relative_l2(true_gradients(half, LOSS_FACTOR, plain), expected) > 0.1
    chainerlp.convert(half, policy)
    assert relative_l2(true_gradients(half, LOSS_FACTOR, chainerlp.backward), expected) < 0.02


def chain_of_linears(depth=3, dtype='e', policy=None, size=4):
    numpy.random.seed(0)
    with chainer.using_config('dtype', numpy.dtype(dtype)):
        net = chainer.Sequential(*[L.Linear(size, size) for _ in range(depth)])
    net.cleargrads()  # Chainer makes parameters with gradients of NaN
    return chainerlp.convert(net, policy or policies.Fixed(2))


def test_total_scales_multiply_on_the_way_down_and_weights_carry_what_their_layer_was_given():
    net = chain_of_linears(3, policy=policies.Fixed(4))
    x = chainer.Variable(numpy.ones((2, 4), 'e'))
    with leaf_scales() as scales:
        chainerlp.backward(F.sum(net(x)), initial_scale=8.0)
    assert [scales[id(layer.W)] for layer in net] == [8.0 * 16, 8.0 * 4, 8.0]
    assert [scales[id(layer.b)] for layer in net] == [8.0 * 16, 8.0 * 4, 8.0]
    assert scales[id(x)] == 8.0 * 64
    assert all(v.grad.dtype == 'float32' and v._loss_scale is None for v in [x, *net.params()])


def test_scaled_gradients_are_the_true_ones_times_their_scale():
    net = chain_of_linears(3, policy=policies.Fixed(4))
    reference = chainerlp.convert(chain_of_linears(3), policies.Fixed(1))
    x = numpy.ones((2, 4), 'e')
    chainerlp.backward(F.sum(net(x)))
    F.sum(reference(x)).backward()
    for scaled, plain_ in zip(net.params(), reference.params()):
        numpy.testing.assert_array_equal(chainerlp.unscaled_grad(scaled), plain_.grad)
        assert chainerlp.unscaled_grad(scaled).dtype == numpy.float32


def test_weight_gradients_get_scales_of_their_own_where_the_policy_says_so():
    x = numpy.ones((2, 4), 'e')
    scales = {}
    for name, policy, scale_weights in [
        ('paper', policies.Adaptive(), None),
        ('asked for', policies.Adaptive(), True),
        ('amax', policies.Amax(), None),
        ('forbidden', policies.Amax(), False),
    ]:
        net = chainerlp.convert(chain_of_linears(1), policy, scale_weights)
        with leaf_scales() as of_leaves:
            chainerlp.backward(F.sum(net(x)) * 1e-3)
        scales[name] = of_leaves[id(net[0].W)]
        # gW is 2e-3 everywhere, but for roundings to float16, of at most 2^-11 relative each.
        numpy.testing.assert_allclose(chainerlp.unscaled_grad(net[0].W), 2e-3, rtol=2.0**-10)
    assert scales['paper'] == scales['forbidden'] == 1
    # The largest power of two with 2e-3 times it at most 65504 / 2^4.
    assert scales['asked for'] == scales['amax'] == 2.0**20


def test_small_weight_gradients_survive_with_a_scale_of_their_own():
    x = numpy.full((2, 4), 1e-4, 'e')
    lost, kept = (
        chainerlp.convert(chain_of_linears(1), policies.Fixed(1), flag) for flag in (False, True)
    )
    for net in (lost, kept):
        y = net(x)
        y.grad = numpy.full(y.shape, 1e-4, 'e')
        chainerlp.backward(y)
    assert not chainerlp.unscaled_grad(lost[0].W).any()
    numpy.testing.assert_allclose(chainerlp.unscaled_grad(kept[0].W), 2e-8, rtol=2e-3)


def test_a_link_used_twice_is_numbered_in_forward_order_and_keeps_two_scales():
    chosen = []

    class Spy(policies.Fixed):
        def scale(self, gy, W, total_scale=1.0, **kwargs):
            chosen.append(len(chosen) + 1.0)
            return 2.0 ** len(chosen)

    layer = chain_of_linears(1, policy=Spy(1))[0]
    x = chainer.Variable(numpy.ones((2, 4), 'e'))
    first = layer(x)
    second = layer(first)
    chainerlp.backward(F.sum(second))
    assert (first.creator_node.call, second.creator_node.call) == (0, 1)
    assert (first.creator_node.scale, second.creator_node.scale) == (4.0, 2.0)


def test_scales_are_kept_for_an_interval():
    counts = []

    class Counting(policies.Adaptive):
        def scale(self, *args, **kwargs):
            counts.append(1)
            return super().scale(*args, **kwargs)

    net = chain_of_linears(2, policy=Counting(interval=3))
    for _ in range(7):
        chainerlp.backward(F.sum(net(numpy.ones((2, 4), 'e'))))
    assert len(counts) == 3  # before passes 1, 4 and 7; the first layer's input wants no gradient


def test_a_parameter_that_has_a_gradient_is_added_to_whatever_the_scales():
    net = chain_of_linears(2, policy=policies.Fixed(4))
    x = numpy.ones((2, 4), 'e')
    chainerlp.backward(F.sum(net(x)), initial_scale=2.0)
    once = [chainerlp.unscaled_grad(p) for p in net.params()]
    chainerlp.backward(F.sum(net(x)), initial_scale=64.0)
    for param, gradient in zip(net.params(), once):
        # Twice a float16 number is one too.
        numpy.testing.assert_array_equal(chainerlp.unscaled_grad(param), 2 * gradient)


def test_a_gradient_from_chainers_own_backward_is_added_to():
    net = chain_of_linears(1)
    x = numpy.ones((2, 4), 'e')
    F.sum(net(x)).backward(loss_scale=16.0)
    assert net[0].W._loss_scale == 16.0
    chainerlp.backward(F.sum(net(x)), initial_scale=2.0)
    numpy.testing.assert_array_equal(chainerlp.unscaled_grad(net[0].W), numpy.full((4, 4), 4.0))


def test_float32_is_chainers_result_bit_for_bit_with_many_paths_to_one_array():
    def run(backward):
        numpy.random.seed(3)
        net = chainer.Sequential(*[L.Linear(6, 6) for _ in range(4)])
        net.cleargrads()
        chainerlp.convert(net, policies.Adaptive())
        x = chainer.Variable(numpy.random.standard_normal((5, 6)).astype('f'))
        h = x
        for layer in net:
            h = F.concat(F.split_axis(layer(h) + h + F.sigmoid(h) + x * 0.3, 2, axis=1))
        backward(F.sum(h * h))
        return [x.grad] + [param.grad for param in net.params()]

    for actual, expected in zip(run(chainerlp.backward), run(plain)):
        numpy.testing.assert_array_equal(actual, expected)


def test_outputs_of_one_function_are_brought_to_one_scale():
    numpy.random.seed(0)
    left, right = (chain_of_linears(1, policy=policies.Fixed(s)) for s in (2, 64))
    x = chainer.Variable(numpy.random.standard_normal((3, 8)).astype('e'))
    a, b = F.split_axis(F.identity(x), 2, axis=1)
    with leaf_scales() as scales:
        chainerlp.backward(F.sum(left(a)) + F.sum(right(b)))
    assert scales[id(x)] in (2, 64)
    expected = numpy.concatenate([net[0].W.array.astype('f').sum(axis=0) for net in (left, right)])
    # One rounding to float16 of a sum of four.
    numpy.testing.assert_allclose(chainerlp.unscaled_grad(x)[0], expected, rtol=2.0**-10)


def test_the_loss_may_have_a_gradient_of_its_own():
    net = chain_of_linears(1, policy=policies.Fixed(1))
    y = net(numpy.ones((2, 4), 'e'))
    y.grad = numpy.full((2, 4), 3, 'e')
    chainerlp.backward(y, initial_scale=4.0)
    numpy.testing.assert_array_equal(net[0].b.grad, numpy.full(4, 6.0))


def test_a_loss_that_is_no_scalar_and_has_no_gradient_is_an_error():
    y = chain_of_linears(1)(numpy.ones((2, 4), 'e'))
    with pytest.raises(ValueError, match=r'shape \(2, 4\) and no gradient'):
        chainerlp.backward(y)


def test_a_loss_without_a_graph_gets_its_own_gradient():
    loss = chainer.Variable(numpy.array(2.0, 'f'))
    chainerlp.backward(loss, initial_scale=2.0)
    assert chainerlp.unscaled_grad(loss) == 1


def test_without_a_gradient_there_is_none():
    assert chainerlp.unscaled_grad(chainer.Parameter(numpy.zeros(2, 'f'))) is None


def test_intermediate_gradients_are_kept_on_request():
    net = chain_of_linears(2, policy=policies.Fixed(4))
    h = net[0](numpy.ones((2, 4), 'e'))
    loss = F.sum(net[1](h))
    chainerlp.backward(loss)
    assert h.grad is None and loss.grad is None
    chainerlp.backward(loss, retain_grad=True)
    column_sums = net[1].W.array.astype('f').sum(axis=0)
    numpy.testing.assert_allclose(chainerlp.unscaled_grad(h)[0], column_sums, rtol=2.0**-10)


def test_no_graph_is_recorded_of_the_backward_pass():
    net = chain_of_linears(2)
    chainerlp.backward(F.sum(net(numpy.ones((2, 4), 'e'))))
    assert all(param.grad_var.creator_node is None for param in net.params())


class Recorder(chainer.FunctionHook):
    def __init__(self):
        self.calls = []

    def backward_preprocess(self, function, in_data, out_grad):
        self.calls.append(('before', function.label, [a is None for a in in_data]))

    def backward_postprocess(self, function, in_data, out_grad):
        self.calls.append(('after', function.label, [g.shape for g in out_grad]))


def test_function_hooks_see_every_backward_in_chainers_order():
    def calls(backward):
        net = chain_of_linears(2)
        x = numpy.ones((2, 4), 'e')
        with Recorder() as hook:
            loss = F.sum(F.relu(net[1](F.relu(net[0](x)))))
            backward(loss)
        return hook.calls

    assert calls(chainerlp.backward) == calls(plain)


def test_a_hook_of_one_function_is_called():
    net = chain_of_linears(1)
    y = net(numpy.ones((2, 4), 'e'))
    hook = Recorder()
    y.creator_node.add_hook(hook)
    chainerlp.backward(F.sum(y))
    assert [call[0] for call in hook.calls] == ['before', 'after']


class Faulty(chainer.FunctionNode):
    def __init__(self, gradients):
        self._gradients = gradients

    def forward(self, inputs):
        return (inputs[0].copy(),)

    def backward(self, indexes, grad_outputs):
        return self._gradients(grad_outputs[0])


def run_faulty(gradients):
    x = chainer.Variable(numpy.ones(3, 'e'))
    (y,) = Faulty(gradients).apply((x,))
    chainerlp.backward(F.sum(y))


def test_a_gradient_of_the_wrong_dtype_or_shape_is_chainers_error():
    with pytest.raises(TypeError, match='Dtype'):
        run_faulty(lambda g: (F.cast(g, 'float32'),))
    with pytest.raises(ValueError, match='[Ss]hape'):
        run_faulty(lambda g: (F.concat((g, g), axis=0),))


def test_a_wrong_number_of_gradients_is_an_error():
    with pytest.raises(ValueError, match='Faulty returned 3 gradients, not 1'):
        run_faulty(lambda g: (g, g, g))


def test_a_gradient_that_is_left_out_ends_the_path():
    run_faulty(lambda g: (None,))


def test_nan_is_found_in_debug_mode():
    with chainer.using_config('debug', True):
        with pytest.raises(RuntimeError, match='NaN is detected on backward computation of Faulty'):
            run_faulty(lambda g: (chainer.Variable(numpy.full(3, numpy.nan, 'e')),))


def test_an_error_in_debug_mode_tells_where_the_function_was_called():
    def fail(gradient):
        raise RuntimeError('no gradient today')

    with chainer.using_config('debug', True):
        with pytest.raises(RuntimeError, match='(?s)no gradient today.*run_faulty'):
            run_faulty(fail)


def test_backoff_keeps_all_gradients_smaller_by_the_same_factor():
    def total_scales(backoff):
        net = chain_of_linears(4, policy=policies.Amax(), size=16)
        x = chainer.Variable(numpy.ones((2, 16), 'e'))
        chainerlp.convert(net, policies.Amax(), scale_weights=False)
        with leaf_scales() as scales:
            chainerlp.backward(F.sum(net(x)) * 1e-2, backoff=backoff)
        return numpy.array([scales[id(leaf)] for leaf in [x] + [layer.W for layer in net]])

    numpy.testing.assert_array_equal(total_scales(2.0**-3), total_scales(1.0) * 2.0**-3)


class Tripled(chainer.FunctionNode):
    """A user's own function that has a name in common with the scaled ones."""

    total_scale = property(lambda self: 3.0)

    def forward(self, inputs):
        return (inputs[0] * 3,)

    def backward(self, indexes, grad_outputs):
        return (grad_outputs[0] * self.total_scale,)


def test_the_attributes_of_a_users_own_function_are_left_alone():
    with chainer.using_config('dtype', chainer.mixed16):
        layer = chainerlp.convert(L.Linear(4, 2), policies.Adaptive())
    layer.cleargrads()
    (y,) = Tripled().apply((layer(numpy.ones((5, 4), 'e')),))
    chainerlp.backward(F.sum(y), initial_scale=8.0)
    numpy.testing.assert_array_equal(chainerlp.unscaled_grad(layer.b), 15)


@pytest.mark.parametrize('unchained', [0, 1])
@pytest.mark.parametrize('dtype', ['e', 'f'])
def test_an_output_that_was_unchained_may_be_used_in_the_loss(dtype, unchained):
    with chainer.using_config('dtype', numpy.dtype(dtype)):
        layer = chainerlp.convert(L.Linear(4, 8), policies.Fixed(1))
    layer.cleargrads()
    c = chainer.Variable(numpy.ones((3, 2), dtype))
    outputs = F.lstm(c, layer(numpy.ones((3, 4), dtype)))
    outputs[unchained].unchain()
    loss = F.sum(outputs[0]) + F.sum(outputs[1])
    plain(loss)
    expected = chainerlp.unscaled_grad(layer.W)
    layer.cleargrads()
    chainerlp.backward(loss)
    numpy.testing.assert_allclose(layer.W.grad, expected, rtol=2.0**-9, atol=2.0**-12)


class Clipping(chainer.FunctionNode):
    """Identity, whose backward clips the gradient at 1: it is not linear in it."""

    needs_true_gradient = True

    def forward(self, inputs):
        return inputs

    def backward(self, indexes, grad_outputs):
        return (F.clip(grad_outputs[0], -1.0, 1.0),)


class OldClipping(chainer.Function):
    needs_true_gradient = True

    def forward(self, inputs):
        return inputs

    def backward(self, inputs, grad_outputs):
        return (numpy.clip(grad_outputs[0], -1, 1),)


@pytest.mark.parametrize('clip', [lambda h: Clipping().apply((h,))[0], lambda h: OldClipping()(h)])
def test_a_backward_that_is_not_linear_gets_the_true_gradient_where_it_asks_for_it(clip):
    net = chain_of_linears(2, policy=policies.Fixed(64))
    y = net[1](clip(net[0](numpy.ones((2, 4), 'e'))))
    y.grad = numpy.full(y.shape, 3, 'e')
    chainerlp.backward(y, initial_scale=16.0)
    expected = numpy.clip(3 * net[1].W.array.astype('f').sum(axis=0), -1, 1)
    # Two rows; one rounding to float16 of what is not clipped.
    numpy.testing.assert_allclose(net[0].b.grad, 2 * expected, rtol=2.0**-9)


def test_micro_batches_are_added_up_in_float32():
    net = chain_of_linears(1, policy=policies.Amax())
    x = numpy.random.RandomState(0).uniform(0.5, 1, (1, 4)).astype('e')
    for _ in range(4096):
        chainerlp.backward(F.sum(net(x)))
    expected = numpy.tile(4096 * x.astype('d'), (4, 1))
    # 4096 additions in float32, each off by 2^-24 of the sum so far.
    numpy.testing.assert_allclose(net[0].W.grad, expected, rtol=4096 * 2.0**-24)


@pytest.mark.parametrize('uses', [3, 2000])
def test_the_gradients_of_a_parameter_that_is_used_often_are_added_up_in_float32(uses):
    b = chainer.Parameter(numpy.zeros(4, 'e'))
    b.cleargrad()
    x = numpy.random.RandomState(0).uniform(0.5, 1, (uses, 4)).astype('e')
    loss = sum(F.sum(F.cast(b * row, 'f')) for row in x)
    chainerlp.backward(loss)
    numpy.testing.assert_allclose(b.grad, x.astype('d').sum(axis=0), rtol=uses * 2.0**-24)


def test_a_single_input_to_a_layer_with_half_weights_gives_them_a_scale_all_the_same():
    with chainer.using_config('dtype', numpy.dtype('e')):
        layer = chainerlp.convert(L.Linear(4, 4, nobias=True), policies.Amax())
    layer.cleargrads()
    x = numpy.full((2, 4), 1e-6, 'f')
    y = layer(x)
    assert y.dtype == 'float32'
    chainerlp.backward(F.sum(y) * 1e-3)
    numpy.testing.assert_allclose(layer.W.grad, 2e-9, rtol=2.0**-10)


def test_total_scales_stay_normal_numbers_of_float32():
    for factor, initial in ((0.5, 2.0**-120), (2.0, 2.0**120)):
        net = chain_of_linears(200, policy=policies.Fixed(factor), size=1)
        for layer in net:
            layer.W.array[...] = 1
        x = chainer.Variable(numpy.ones((1, 1), 'e'))
        with leaf_scales() as scales:
            chainerlp.backward(F.sum(net(x)), initial_scale=initial)
        assert 2.0**-126 <= min(scales.values()) and max(scales.values()) <= 2.0**126


def test_it_tells_of_each_parameter_whether_it_had_a_gradient_before():
    model = chainer.Sequential(L.Linear(3, 4), L.Linear(4, 2))
    first, second = model
    model.cleargrads()
    loss = F.sum(model(numpy.ones((5, 3), 'f')))
    second.b.grad = numpy.ones(2, 'f')
    told = {}
    found = backprop.ScaledBackprop(on_parameter=lambda p, is_first: told.update({id(p): is_first}))
    found.run(loss)
    assert told == {id(p): p is not second.b for p in model.params()}
    numpy.testing.assert_array_equal(second.b.grad, 5 + numpy.ones(2))


@pytest.mark.parametrize('at_once, calls', [(1 << 24, [4]), (0, [1, 1, 1, 1])])
def test_gradients_that_are_set_a_few_at_a_time_are_the_same(monkeypatch, at_once, calls):
    numpy.random.seed(0)
    model = chainer.Sequential(L.Linear(3, 4), L.Linear(4, 2))
    model.cleargrads()
    loss = F.sum(model(numpy.ones((5, 3), 'f')) ** 2)
    loss.backward()
    expected = [p.grad for p in model.params()]
    model.cleargrads()
    called = []

    def true_sums(many):
        called.extend([len(many)] * bool(many))
        return backprop_true_sums(many)

    backprop_true_sums = backprop.true_sums
    monkeypatch.setattr(backprop, 'true_sums', true_sums)
    monkeypatch.setattr(backprop, '_SET_AT_ONCE', at_once)
    chainerlp.backward(loss)
    assert called == calls
    for param, grad in zip(model.params(), expected):
        numpy.testing.assert_array_equal(param.grad, grad)
