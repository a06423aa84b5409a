"""Weight decay, the rate of biases, and computing in a lower format, by every method."""

import warnings

from experiments.config import Sweep
from experiments.config.optimizer import SGD, MomentumSGD
from experiments.run import optimizers

import chainer
import numpy
import pytest
from chainer import links

SCALINGS = [
    {'method': 'fp32'},
    {'method': 'none'},
    {'method': 'fixed', 'scale': 128},
    {'method': 'adaptive'},
    {'method': 'amax'},
    {'method': 'per_sample', 'dtype': 'float32', 'compute': 'float16'},
]


@pytest.mark.parametrize('scaling', SCALINGS, ids=lambda scaling: scaling['method'])
@pytest.mark.parametrize('decay', [0.0, 0.25])
def test_weight_decay_is_the_same_for_all_methods_and_in_float32(scaling, decay):
    section = Sweep(seeds=[0], scaling=[scaling]).scaling[0]
    with chainer.using_config('dtype', optimizers.DTYPES[section.dtype]):
        # Batch normalization's parameters are float32 whatever the rest is.
        model = chainer.Sequential(links.Linear(3, 2), links.BatchNormalization(2))
    sgd = SGD(name='sgd', lr=1.0, weight_decay=decay)
    optimizer = optimizers.setup(optimizers.build(sgd), model, section)
    optimizers.add_hooks(optimizer, sgd)
    before = {name: param.array.astype('f') for name, param in model.namedparams()}
    dtype = model[0].W.dtype

    def loss():  # its gradient at every parameter is 2^-11, half an ulp of a float16 weight of 1
        model.cleargrads()
        parts = []
        for param in model.params():
            factor = numpy.full(param.shape, 2.0**-11, 'f')
            parts.append(chainer.functions.sum(chainer.functions.cast(param, 'f') * factor))
        return sum(parts)

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # nothing is scaled, indeed
        optimizer.update(loss)
    for name, param in model.namedparams():
        expected = before[name] - (numpy.float32(2.0**-11) + numpy.float32(decay) * before[name])
        master = param.update_rule._fp32_param
        found = param.array if master is None else master.array
        assert (master is None) == (param.dtype == numpy.float32), (name, dtype)
        # Two float32 operations apart at most, on numbers up to 4.
        numpy.testing.assert_allclose(found, expected, rtol=0, atol=4 * 2.0**-23)


@pytest.mark.parametrize('scaling', SCALINGS, ids=lambda scaling: scaling['method'])
def test_biases_learn_twice_as_fast_and_do_not_decay(scaling):
    section = Sweep(seeds=[0], scaling=[scaling]).scaling[0]
    with chainer.using_config('dtype', optimizers.DTYPES[section.dtype]):
        model = links.Linear(3, 2, initialW=1, initial_bias=1)
    sgd = MomentumSGD(
        name='momentum_sgd', lr=0.5, weight_decay=0.25, undecayed=['b'], bias_rate=2.0
    )
    optimizer = optimizers.setup(optimizers.build(sgd), model, section)
    optimizers.add_hooks(optimizer, sgd)
    x = numpy.ones((1, 3), model.W.dtype)
    optimizer.update(lambda: chainer.functions.sum(chainer.functions.cast(model(x), 'f')))
    # The gradient of everything is 1: W -= 0.5 (1 + 0.25), b -= 2 · 0.5. All exact in float16.
    assert (model.W.array == 0.375).all() and (model.b.array == 0).all()


@pytest.mark.parametrize('corrected', [False, True])
def test_with_corrected_momentum_a_new_rate_is_one_for_the_past_too(corrected):
    model = links.Linear(1, 1, initialW=0)
    sgd = MomentumSGD(name='momentum_sgd', lr=1.0, momentum=0.5, corrected=corrected)
    optimizer = optimizers.build(sgd).setup(model)
    for lr in (1.0, 0.125):
        optimizer.lr = lr
        optimizer.update(lambda: chainer.functions.sum(model(numpy.ones((1, 1), 'f'))))
    # Steps of 1, then 0.5 · 1 + 0.125; corrected: then 0.125 (0.5 · 1 + 1).
    assert -model.W.array.item() == (1.1875 if corrected else 1.625)


@pytest.mark.parametrize(
    'keys, scale',
    [
        ({'method': 'none'}, 1.0),
        ({'method': 'fixed', 'scale': 64}, 64.0),
        ({'method': 'adaptive', 'max_scale': 4.0}, 4.0),
        ({'method': 'per_sample'}, 2.0**15),
        ({'method': 'amax'}, 2.0**41),
        ({'method': 'measured'}, 2.0**6),
        ({'method': 'abs_range'}, 16.0),
        ({'method': 'element_wise_range'}, 16.0),
        ({'method': 'log_normal', 'max_scale': 1024.0}, 2.0**6),
    ],
)
def test_every_method_computes_in_a_lower_format(keys, scale):
    section = Sweep(seeds=[0], scaling=[{**keys, 'dtype': 'float32', 'compute': 'float16'}])
    model = links.Linear(3, 2)
    optimizer = optimizers.setup(chainer.optimizers.SGD(1.0), model, section.scaling[0])
    x = chainer.Variable(numpy.ones((2, 3), 'f'))
    y = model(x)
    y.grad = numpy.full((2, 2), 2.0**-30, 'f')
    optimizer.backward(y)
    assert y.creator.computes_in.name == 'float16'
    assert y.creator.scale == scale
