"""``chainerlp.diagnose`` tells what formats would lose, and leaves the model as it was."""

import math

import chainerlp
from chainerlp import formats, geometry, policies

import chainer
import chainer.functions as F
import chainer.links as L
import ml_dtypes
import numpy
import pytest
from chainer import optimizers, training

DTYPES = {
    'float16': numpy.float16,
    'bfloat16': ml_dtypes.bfloat16,
    'float8_e5m2': ml_dtypes.float8_e5m2,
    'float8_e4m3': ml_dtypes.float8_e4m3fn,
}


class MLP(chainer.ChainList):
    def __init__(self, *sizes):
        super().__init__(*(L.Linear(None, size) for size in sizes))

    def forward(self, x):
        for layer in self[:-1]:
            x = F.relu(layer(x))
        return self[-1](x)


def classifier(net, dtype, shrink=1.0, seed=0):
    numpy.random.seed(seed)
    with chainer.using_config('dtype', dtype):
        return L.Classifier(
            net(), lossfun=lambda y, t: F.softmax_cross_entropy(F.cast(y, 'f'), t) * shrink
        )


def batch_of(dtype, shape=(16, 20)):
    rng = numpy.random.RandomState(1)
    x = rng.standard_normal(shape).astype('f' if dtype == 'f' else 'e')
    return x, rng.randint(0, 10, len(x)).astype('i')


def gradients_of(model, x, t):
    """The data gradient of the last layer of a float32 MLP, and its factors."""
    W = model.predictor[-1].W.array
    y = model.predictor(x)
    model.cleargrads()
    model.lossfun(y, t).backward(retain_grad=True)
    return y.grad.dot(W), y.grad, W


@pytest.fixture
def model():
    model = classifier(lambda: MLP(30, 30, 10), 'f', 2.0**-10)
    model(*batch_of('f'))
    return model


def test_losses_are_what_rounding_to_the_format_loses(model):
    batch = batch_of('f')
    gx, _, _ = gradients_of(model, *batch)
    diagnosis = chainerlp.diagnose(model, model, *batch, show=False)
    assert [row.format for row in diagnosis.rows] == [name for name in DTYPES for _ in range(2)]
    for name, dtype in DTYPES.items():
        _, row = diagnosis.of(name)  # the layers but for the first
        assert (row.layer, row.call) == ('/predictor/2', 0)
        with numpy.errstate(over='ignore'):
            rounded = gx.astype(dtype).astype('f')
        assert row.underflow == ((rounded == 0) & (gx != 0)).mean()
        assert row.overflow == (~numpy.isfinite(rounded)).mean() == 0
        assert 2.0**row.headroom == pytest.approx(formats.get(name).largest / float(abs(gx).max()))
    rates = [diagnosis.of(name)[1].underflow for name in DTYPES]
    assert rates[1] == 0 < rates[0] < rates[2] < rates[3]


@pytest.mark.parametrize('is_converted', [False, True])
def test_with_a_compute_dtype_it_tells_of_output_gradients(model, is_converted):
    batch = batch_of('f')
    options = {} if is_converted else {'compute_dtype': 'float16'}
    if is_converted:
        chainerlp.convert(model, policies.Amax(), compute_dtype='float16')
    diagnosis = chainerlp.diagnose(model, model, *batch, show=False, **options)
    rows = diagnosis.of('float8_e4m3')
    assert [row.layer for row in rows] == ['/predictor/0', '/predictor/1', '/predictor/2']
    y = model.predictor(batch[0])
    model.lossfun(y, batch[1]).backward(retain_grad=True)
    gy = numpy.abs(y.grad)
    lost = (gy <= formats.FLOAT8_E4M3.underflow_threshold) & (gy > 0)
    assert rows[-1].underflow == pytest.approx(lost.mean(), abs=1 / gy.size)
    ones = numpy.ones((10, 1), 'f')
    unbounded = policies.Adaptive(
        max_scale=math.inf, max_total_scale=math.inf, format='float8_e4m3'
    )
    assert rows[-1].scales['Adaptive'] == unbounded.scale(y.grad, ones, terms=1)


def test_with_a_compute_dtype_layers_called_as_functions_are_diagnosed_too():
    numpy.random.seed(0)
    model = chainer.Chain()
    with model.init_scope():
        model.W = chainer.Parameter(chainer.initializers.LeCunNormal(), (8, 20))
        model.last = L.Linear(8, 10)

    def lossfun(x, t):
        return F.softmax_cross_entropy(model.last(F.tanh(F.linear(x, model.W))), t)

    diagnosis = chainerlp.diagnose(
        model, lossfun, *batch_of('f'), compute_dtype='float16', show=False
    )
    assert [row.layer for row in diagnosis.of('float16')] == ['/', '/last']


def test_overflow_is_negative_headroom(model):
    batch = batch_of('f')
    huge = chainerlp.diagnose(
        model, lambda x, t: model(x, t) * 2.0**36, *batch, policies=[], show=False
    )
    for row in huge.rows:
        assert (row.headroom < 0) == (row.overflow > 0) == (row.format != 'bfloat16')


def test_a_gradient_of_zeros_has_no_end_of_headroom(model):
    nothing = chainerlp.diagnose(model, lambda x, t: model(x, t) * 0.0, *batch_of('f'))
    for row in nothing.rows:
        assert row.headroom == math.inf and row.underflow == row.overflow == 0
        assert set(row.scales.values()) == {1.0}


def test_scales_are_those_that_the_policies_choose(model):
    batch = batch_of('f')
    gx, gy, W = gradients_of(model, *batch)
    diagnosis = chainerlp.diagnose(model, model, *batch, show=False)
    assert list(diagnosis.policies) == [
        'Adaptive', 'AbsRange', 'ElementWiseRange', 'LogNormal', 'PerSample', 'Amax', 'Measured',
    ]  # fmt: skip
    bounds = dict(max_scale=math.inf, max_total_scale=math.inf)
    for name in DTYPES:
        _, row = diagnosis.of(name)
        for policy, scale in row.scales.items():
            expected = getattr(policies, policy)(format=name, **bounds).scale(gy, W, product=gx)
            assert scale == expected
    assert len({tuple(row.scales.values()) for row in diagnosis.rows}) > 4


def test_policies_can_be_given_and_keep_their_bounds(model):
    given = [policies.Fixed(8), policies.Adaptive(max_scale=2), policies.Adaptive(max_scale=4)]
    diagnosis = chainerlp.diagnose(model, model, *batch_of('f'), policies=given)
    assert list(diagnosis.policies) == ['Fixed', 'Adaptive #0', 'Adaptive #1']
    for row in diagnosis.of('float8_e4m3'):
        assert list(row.scales.values()) == [8, 2, 4]


def test_formats_can_be_chosen(model):
    diagnosis = chainerlp.diagnose(model, model, *batch_of('f'), formats=['float16'])
    assert {row.format for row in diagnosis.rows} == {'float16'}


@pytest.mark.parametrize('is_converted', [False, True])
def test_in_float16_what_underflows_in_one_layer_is_not_missing_from_the_next(is_converted):
    single = classifier(lambda: MLP(*[40] * 5, 10), 'f', 2.0**-14)
    half = classifier(lambda: MLP(*[40] * 5, 10), chainer.mixed16, 2.0**-14)
    single(*batch_of('f'))
    half(*batch_of('e'))
    for mine, theirs in zip(half.params(), single.params()):
        mine.array[...] = theirs.array
    if is_converted:
        chainerlp.convert(half, policies.Adaptive())
    options = dict(formats=['float16'], initial_scale='auto', show=False)
    expected = chainerlp.diagnose(single, single, *batch_of('f'), **options).rows
    found = chainerlp.diagnose(half, half, *batch_of('e'), **options).rows
    assert [row.layer for row in found] == [row.layer for row in expected]
    for mine, theirs in zip(found, expected):
        assert theirs.underflow > 0.02
        assert mine.underflow == pytest.approx(theirs.underflow, rel=0.05)
        assert mine.headroom == pytest.approx(theirs.headroom, abs=0.05)


class Net(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = L.Convolution2D(None, 4, 3, pad=1)
            self.norm = L.BatchNormalization(4)
            self.conv2 = L.Convolution2D(4, 4, 3, pad=1, groups=2)
            self.fc = L.Linear(None, 10)

    def forward(self, x):
        h = F.relu(self.norm(self.conv1(x)))
        h = h + F.relu(self.conv2(F.dropout(self.conv2(h))))
        return self.fc(h)


def trainer_of(tmp_path, is_wrapped):
    model = classifier(Net, chainer.mixed16)
    optimizer = optimizers.MomentumSGD(0.1)
    if is_wrapped:
        optimizer = chainerlp.AdaptiveLossScaling(optimizer, policies.Measured(interval=3))
    optimizer.use_fp32_update()
    optimizer.setup(model)
    data = chainer.datasets.TupleDataset(*batch_of('e', (16, 1, 6, 6)))
    updater = training.updaters.StandardUpdater(
        chainer.iterators.SerialIterator(data, 8), optimizer
    )
    return training.Trainer(updater, (8, 'iteration'), out=str(tmp_path)), model


@pytest.mark.parametrize('is_wrapped', [False, True])
def test_a_training_goes_on_as_if_nothing_had_been(tmp_path, is_wrapped):
    weights = []
    for is_diagnosed in (False, True):
        trainer, model = trainer_of(tmp_path, is_wrapped)

        @training.make_extension(trigger=(1, 'iteration'))
        def diagnose(trainer, model=model):
            rows = chainerlp.diagnose(model, model, *batch_of('e', (16, 1, 6, 6)), show=False).rows
            assert len(rows) == 3 * 4

        if is_diagnosed:
            trainer.extend(diagnose)
        log = training.extensions.LogReport(trigger=(1, 'iteration'))
        trainer.extend(log)
        trainer.run()
        losses = [entry['main/loss'] for entry in log.log]
        state = [param.array for param in model.params()] + [model.predictor.norm.avg_mean, losses]
        weights.append(state)
    for without, with_it in zip(*weights):
        numpy.testing.assert_array_equal(without, with_it)


def test_a_model_that_is_new_stays_so():
    model = classifier(Net, chainer.mixed16)
    before = dict(vars(model)), numpy.random.get_state()[1].tolist()
    chainerlp.diagnose(model, model, *batch_of('e', (16, 1, 6, 6)))
    assert (dict(vars(model)), numpy.random.get_state()[1].tolist()) == before
    assert type(model.predictor.conv1) is L.Convolution2D
    assert not model.predictor.conv1.W.is_initialized
    assert model.predictor.norm.avg_mean.tolist() == [0] * 4
    assert model.loss is None


def test_no_hook_stays_behind(model):
    hooks = dict(chainer.get_function_hooks())
    with pytest.raises(ZeroDivisionError):
        chainerlp.diagnose(model, lambda x, t: 1 / 0, *batch_of('f'))
    chainerlp.diagnose(model, model, *batch_of('f'))
    assert dict(chainer.get_function_hooks()) == hooks


def test_it_works_where_backprop_is_turned_off(model):
    with chainer.no_backprop_mode():
        rows = chainerlp.diagnose(model, model, *batch_of('f'), show=False).rows
    assert len(rows) == 2 * 4


def test_two_uses_of_a_layer_are_two_rows():
    model = classifier(Net, chainer.mixed16)
    diagnosis = chainerlp.diagnose(model, model, *batch_of('e', (16, 1, 6, 6)), formats=['float16'])
    assert [(row.layer, row.call) for row in diagnosis.rows] == [
        ('/predictor/conv2', 0), ('/predictor/conv2', 1), ('/predictor/fc', 0),
    ]  # fmt: skip
    assert '/predictor/conv2 #1' in str(diagnosis)


class PlainDeconvolution(chainer.Chain):
    """A layer that no link is: its data gradient sums over the output's channels and the kernel."""

    def __init__(self, groups, stride):
        super().__init__()
        self.options = dict(stride=stride, groups=groups)
        rng = numpy.random.RandomState(0)
        with self.init_scope():
            self.scale = chainer.Parameter(numpy.ones((1, 4, 1, 1), 'f'))
            self.W = chainer.Parameter(rng.standard_normal((4, 6 // groups, 3, 3)).astype('f'))

    def forward(self, x):
        return F.sum(F.deconvolution_2d(x * self.scale, self.W, **self.options) ** 2)


@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('stride', [1, 2])
def test_a_plain_deconvolutions_product_and_its_length_are_those_of_its_geometry(groups, stride):
    net = PlainDeconvolution(groups, stride)
    x = numpy.random.RandomState(1).standard_normal((2, 4, 5, 5)).astype('f') * 2.0**-14
    by_terms = policies.Adaptive(max_scale=math.inf, max_total_scale=math.inf)
    by_position = policies.PerSample()
    (row,) = chainerlp.diagnose(
        net, net, x, policies=[by_terms, by_position], formats=['float16'], show=False
    ).rows
    scaled = chainer.Variable(x)
    y = F.deconvolution_2d(scaled, net.W, **net.options)
    F.sum(y**2).backward(retain_grad=True)
    with numpy.errstate(over='ignore'):
        rounded = scaled.grad.astype('e')
    assert row.underflow == ((rounded == 0) & (scaled.grad != 0)).mean()
    expected = by_terms.scale(y.grad, net.W.array, terms=6 // groups * 9)
    assert row.scales['Adaptive'] == float(expected)
    convolution = geometry.Convolution((stride,) * 2, (1, 1), (1, 1), groups)
    layer = geometry.Deconvolution(convolution, y.shape[2:])
    window = layer.window(y.shape, net.W.shape, x.shape[2:])
    assert row.scales['PerSample'] == by_position.scale(
        y.grad, layer.weight_by_output(net.W.array), terms=6 // groups * 9, window=window
    )


def test_the_convolutions_of_a_gradient_penalty_are_diagnosed_too():
    class Critic(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.first = L.Convolution2D(3, 4, 3, stride=2)
                self.second = L.Deconvolution2D(4, 2, 3, stride=2)

        def forward(self, x):
            return self.second(F.tanh(self.first(x)))

    critic = Critic()

    def penalty(x):
        x = chainer.Variable(x)
        (gx,) = chainer.grad([F.sum(critic(x) ** 2)], [x], enable_double_backprop=True)
        return F.mean((F.sqrt(F.sum(gx**2, axis=(1, 2, 3))) - 1) ** 2)

    x = numpy.random.RandomState(0).standard_normal((2, 3, 9, 9)).astype('f')
    diagnosis = chainerlp.diagnose(critic, penalty, x, formats=['float16'], show=False)
    assert any('second' in row.layer for row in diagnosis.rows)
    assert all(math.isfinite(row.headroom) for row in diagnosis.rows)


def test_it_prints_aligned_tables_unless_told_not_to(model, capsys):
    diagnosis = chainerlp.diagnose(model, model, *batch_of('f'))
    printed = capsys.readouterr().out
    assert printed == f'{diagnosis}\n'
    table = printed.split('\n\n')[2].splitlines()
    assert table[0].startswith('float8_e5m2 (2^-16 to 57344): 2 of 2 layers underflow')
    assert table[1].split()[:3] == ['layer', 'underflow', 'headroom'] and len(table) == 4
    assert len({len(line) for line in table[1:]}) == 1
    assert all(len(line) <= 110 for line in printed.splitlines())
    chainerlp.diagnose(model, model, *batch_of('f'), show=False)
    assert capsys.readouterr().out == ''


def test_a_model_without_anything_to_tell_says_so(capsys):
    model = classifier(lambda: MLP(10), 'f')
    assert chainerlp.diagnose(model, model, *batch_of('f')).rows == []
    assert 'no linear or convolution layer passes a gradient on' in capsys.readouterr().out


@pytest.mark.parametrize(
    'arguments, error, message',
    [
        ((lambda model: (None, model)), TypeError, 'model must be a chainer.Link, not NoneType'),
        ((lambda model: (model, batch_of('f')[0])), TypeError, 'lossfun must be callable, such as'),
        (
            (lambda model: (model, lambda x, t: 1.0)),
            TypeError,
            'lossfun must return a chainer.Variable, not float',
        ),
        (
            (lambda model: (model, lambda x, t: model.predictor(x))),
            ValueError,
            r'the loss has the shape \(16, 10\)',
        ),
    ],
    ids=['model', 'lossfun', 'no variable', 'no scalar'],
)
def test_what_is_wrong_is_said(model, arguments, error, message):
    with pytest.raises(error, match=message):
        chainerlp.diagnose(*arguments(model), *batch_of('f'))


def test_an_unknown_format_is_an_error_that_lists_the_known_ones(model):
    with pytest.raises(ValueError, match='format must be one of bfloat16, .*, not .fp8.'):
        chainerlp.diagnose(model, model, *batch_of('f'), formats=['fp8'])
