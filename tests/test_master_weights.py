"""Float32 copies of float16 parameters stay in step with what others do to the parameters."""

import chainerlp
from chainerlp import policies

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers, serializers


def make_model(dtype=chainer.mixed16):
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        return chainer.Sequential(L.Linear(6, 6), F.tanh, L.Linear(6, 6))


def loss_of(model, seed=1):
    x = numpy.random.RandomState(seed).standard_normal((16, 6))
    dtype = next(model.params()).dtype
    return F.mean(F.cast(model(x.astype(dtype)), 'float32') ** 2)


def wrap(model, optimizer=None, **kwargs):
    optimizer = optimizer or optimizers.MomentumSGD(0.1)
    return chainerlp.AdaptiveLossScaling(optimizer, **kwargs).setup(model)


def test_weights_that_are_clipped_between_updates_stay_clipped():
    model = make_model()
    wrapped = wrap(model, optimizers.SGD(0.1))
    for _ in range(4):
        wrapped.update(loss_of, model)
        for param in model.params():
            param.array[...] = param.array.clip(-0.01, 0.01)
    before = [param.array.copy() for param in model.params()]
    wrapped.update(loss_of, model)
    for param, array in zip(model.params(), before):
        # One update moves a weight by lr times a small gradient, not back to where it was.
        assert abs(param.array.astype('f') - array.astype('f')).max() < 0.01


def test_weights_that_are_loaded_while_training_are_trained_on(tmp_path):
    other, model = make_model(), make_model()
    for param in other.params():
        param.array += numpy.float16(0.5)
    serializers.save_npz(tmp_path / 'other.npz', other)
    wrapped = wrap(model, optimizers.SGD(1e-4))
    wrapped.update(loss_of, model)
    serializers.load_npz(tmp_path / 'other.npz', model)
    wrapped.update(loss_of, model)
    for param, of_other in zip(model.params(), other.params()):
        difference = abs(param.array.astype('f') - of_other.array.astype('f')).max()
        assert difference < 0.01


def test_what_a_half_cannot_hold_is_not_lost_for_it():
    model = make_model()
    wrapped = wrap(model, optimizers.SGD(1e-5))
    for _ in range(50):
        wrapped.update(loss_of, model)
    master = model[0].W.update_rule._fp32_param.array
    assert (master != master.astype('e')).mean() > 0.9


@pytest.mark.parametrize('times', [2, 3])
def test_copies_that_share_their_parameters_are_trained_as_in_float32(times):
    def build(dtype):
        numpy.random.seed(0)
        with chainer.using_config('dtype', dtype):
            return chainer.Sequential(L.Linear(6, 6), F.tanh).repeat(times, 'share')

    single, half = build(numpy.float32), build(chainer.mixed16)
    reference = optimizers.SGD(0.5).setup(single)
    wrapped = wrap(half, optimizers.SGD(0.5), policy=policies.Amax())
    for _ in range(20):
        reference.update(loss_of, single)
        wrapped.update(loss_of, half)
    # 20 updates, each from activations and gradients rounded to 2^-11.
    for a, b in zip(half.params(), single.params()):
        numpy.testing.assert_allclose(a.array.astype('f'), b.array, atol=20 * 2.0**-11)


class FailingSerializer(chainer.Serializer):
    """A save that ends in an error, as on a full disk, after some keys."""

    def __init__(self, error, keys_before):
        self.error = error
        self.keys_left = keys_before

    def __getitem__(self, key):
        return self

    def __call__(self, key, value):
        if self.keys_left == 0:
            raise self.error
        self.keys_left -= 1
        return value


@pytest.mark.parametrize('error', [ValueError('not supported'), KeyError('exists'), OSError(28)])
def test_a_save_that_fails_is_that_error_and_loses_no_master_weight(error, recwarn):
    model = make_model()
    wrapped = wrap(model, optimizers.Adam())
    wrapped.update(loss_of, model)
    masters = [param.update_rule._fp32_param for param in model.params()]
    n_keys = 0
    while n_keys < 100:
        try:
            wrapped.serialize(FailingSerializer(error, n_keys))
            break
        except type(error) as raised:
            assert raised is error
        n_keys += 1
    assert n_keys > 10  # each of the keys was one that failed once
    assert not recwarn.list
    for param, master in zip(model.params(), masters):
        assert master is not None
        assert param.update_rule._fp32_param is master
