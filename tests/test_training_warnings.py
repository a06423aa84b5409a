"""What is not scaled, though one will think that it is, is said once, and where."""

import warnings

import chainerlp
from chainerlp import policies
from chainerlp.true_gradients import is_held_scaled

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import optimizers


class OwnMatrixProduct(L.Linear):
    def forward(self, x):
        return F.matmul(x, self.W, transb=True)


class Scale(chainer.Chain):
    """Has a float16 parameter, and no layer."""

    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.factor = chainer.Parameter(numpy.ones(3, 'e'))

    def forward(self, x):
        return x * F.broadcast_to(self.factor, x.shape)


def caught(model, updates=2, dtype='e'):
    optimizer = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.1)).setup(model)
    x = numpy.ones((2, 3), dtype)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        for _ in range(updates):
            optimizer.update(lambda: F.sum(optimizer.target(x)))
    # NumPy's, of Chainer's functions, are not ours.
    return [
        w for w in found if w.category is RuntimeWarning and 'encountered' not in str(w.message)
    ]


def half(make):
    with chainer.using_config('dtype', chainer.mixed16):
        return make()


def test_a_model_without_float16_is_named_once_with_what_to_do():
    (warning,) = caught(L.Linear(3, 2), dtype='f')
    assert str(warning.message) == (
        'AdaptiveLossScaling scales nothing: Linear has no float16 parameter (/W is float32); build'
        ' it after chainer.global_config.dtype = chainer.mixed16, or give'
        " compute_dtype='float16'"
    )
    assert warning.filename == __file__


def test_a_model_without_a_layer_is_named():
    (warning,) = caught(Scale())
    assert 'scales nothing: Scale has no linear or convolution layer' in str(warning.message)


def test_a_class_that_calls_no_layer_is_named_at_its_own_line():
    model = half(lambda: chainer.Sequential(L.Linear(3, 3), OwnMatrixProduct(3, 2)))
    (warning,) = caught(model)
    assert str(warning.message) == (
        'OwnMatrixProduct.forward calls no function of a layer with the weight of /1: its gradients'
        ' are not scaled'
    )
    assert warning.filename == __file__
    assert warning.lineno == OwnMatrixProduct.forward.__code__.co_firstlineno


@pytest.mark.parametrize(
    'make',
    [
        lambda: L.Linear(3, 2),
        lambda: chainer.Sequential(L.Linear(3, 3), Scale()),
        lambda: chainer.Sequential(L.BatchNormalization(3), L.Linear(3, 2)),
    ],
)
def test_nothing_is_said_where_something_is_scaled(make):
    assert caught(half(make)) == []


class RootOfZero(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.layer = L.Linear(3, 2)

    def forward(self, x):
        return F.sqrt(self.layer(x) * 0)


def test_thirty_skipped_updates_in_a_row_name_the_first_gradient_that_is_not_finite():
    model = half(RootOfZero)
    assert caught(model, updates=29) == []
    (warning,) = caught(half(RootOfZero), updates=35)
    assert str(warning.message) == (
        '30 updates in a row were skipped: the gradient of input 0 of sqrt is the first that is not'
        ' finite'
    )


def test_an_inf_in_a_weight_is_named():
    model = half(lambda: chainer.Sequential(L.Linear(3, 3), L.Linear(3, 2)))
    model[1].W.array[0, 1] = numpy.inf
    (warning,) = caught(model, updates=31)
    assert 'updates in a row were skipped: /1/W is not finite' in str(warning.message)


def test_a_weight_that_leaves_float16_is_kept_at_the_largest_number_and_named():
    model = half(lambda: L.Linear(3, 2))
    optimizer = chainerlp.AdaptiveLossScaling(optimizers.SGD(1e6), initial_scale=1.0).setup(model)
    x = numpy.ones((2, 3), 'e')
    with pytest.warns(RuntimeWarning, match='^/W left float16: it is kept at 65504'):
        optimizer.update(lambda: F.sum(model(x)))
    numpy.testing.assert_array_equal(model.W.array, -65504)
    assert optimizer.skipped == 0


def test_gradients_of_plain_backward_are_named():
    model = half(lambda: L.Linear(3, 2))
    optimizer = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.1), policies.Amax()).setup(model)
    F.sum(model(numpy.ones((2, 3), 'e'))).backward()
    with pytest.warns(RuntimeWarning, match='gradients of loss.backward.* /W') as found:
        optimizer.update()
    assert found[0].filename == __file__


def test_gradients_that_are_spoiled_after_the_pass_are_named():
    model = half(lambda: L.Linear(3, 2))
    optimizer = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.1)).setup(model)
    with pytest.warns(RuntimeWarning) as caught:
        for _ in range(40):
            model.cleargrads()
            optimizer.backward(F.sum(model(numpy.ones((2, 3), 'e'))))
            model.b.grad[...] = numpy.nan
            optimizer.update()
    (warning,) = caught
    assert str(warning.message) == (
        '30 updates in a row were skipped: the gradient of /b is not finite'
    )


@pytest.mark.filterwarnings('ignore:.*zerograds:DeprecationWarning')
def test_zeros_and_gradients_that_the_user_rounds_are_not_taken_for_plain_ones(recwarn):
    model = half(lambda: chainer.Sequential(L.Linear(3, 2), L.Linear(3, 2)))
    optimizer = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.1)).setup(model)
    for _ in range(2):
        model.zerograds()  # one layer is not used
        optimizer.backward(F.sum(model[0](numpy.ones((2, 3), 'e'))))
        model[0].W.grad = model[0].W.grad.astype('e')
        optimizer.update()
    assert not [str(w.message) for w in recwarn if w.category is RuntimeWarning]


def test_to_look_for_plain_gradients_forms_none():
    model = half(lambda: L.Linear(3, 2))
    optimizer = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.1)).setup(model)
    model.cleargrads()
    optimizer.backward(F.sum(model(numpy.ones((2, 3), 'e'))))
    optimizer.update()
    assert is_held_scaled(model.W)


def test_a_pass_before_setup_is_chainers_error():
    model = half(lambda: L.Linear(3, 2))
    optimizer = chainerlp.AdaptiveLossScaling(optimizers.SGD(0.1))
    with pytest.raises(RuntimeError, match='setup'):
        optimizer.backward(F.sum(model(numpy.ones((2, 3), 'e'))))
