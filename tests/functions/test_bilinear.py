"""The bilinear function, which has two data gradients and so two scales."""

from chainerlp import backprop, functions, policies
from tests.leaf_scales import leaf_scales

import chainer
import numpy
import pytest
from chainer import serializers


def half(seed, *shape, magnitude=1.0):
    values = numpy.random.RandomState(seed).standard_normal(shape) * magnitude
    return values.astype(numpy.float16)


def inputs(left=1.0, right=1.0):
    arrays = [
        half(0, 3, 4, magnitude=left),
        half(1, 3, 5, magnitude=right),
        half(2, 4, 5, 6),
        half(3, 4, 6, magnitude=2.0**-14),
        half(4, 5, 6, magnitude=2.0**-14),
        half(5, 6),
    ]
    return [chainer.Variable(a) for a in arrays]


def backward(variables, layer_scale):
    """Returns the function, and the scales that the gradients of e1 and e2 carry."""
    y = functions.scaled_bilinear(*variables, layer_scale=layer_scale)
    y.grad = numpy.full(y.shape, 2.0**-20, y.dtype)
    with leaf_scales() as scales:
        backprop.backward(y)
    return y.creator_node, [scales.get(id(variable)) for variable in variables[:2]]


def test_each_input_has_a_scale_of_its_own():
    # The gradient of e1 is proportional to e2, which is small.
    e1, e2, *rest = inputs(left=1.0, right=2.0**-10)
    function, (of_e1, of_e2) = backward([e1, e2, *rest], functions.LayerScale(policies.Amax()))
    assert of_e1 > 2**6 * of_e2
    assert (function.scale, function.total_scale) == (of_e1, of_e1)


def test_both_scales_are_kept_for_the_interval(tmp_path):
    layer_scale = functions.LayerScale(policies.Amax(interval=2))
    first, second, third = inputs(1.0, 2.0**-10), inputs(2.0**-10, 1.0), inputs(2.0**-10, 1.0)
    _, scales = backward(first, layer_scale)
    serializers.save_npz(tmp_path / 'scale.npz', layer_scale)
    loaded = functions.LayerScale(policies.Amax(interval=2))
    serializers.load_npz(tmp_path / 'scale.npz', loaded)
    assert backward(second, loaded)[1] == scales
    assert backward(third, loaded)[1] != scales


@pytest.mark.parametrize('wanted', [(0,), (1,), (1, 2), (2, 5), (0, 3, 4)])
@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32])
def test_gradients_go_to_the_inputs_that_want_them(wanted, dtype):
    everything = [chainer.Variable(v.array.astype(dtype)) for v in inputs()]
    some = [chainer.Variable(v.array, requires_grad=i in wanted) for i, v in enumerate(everything)]
    for variables in (everything, some):
        backward(variables, functions.LayerScale(policies.Fixed(1)))
    for i, (expected, actual) in enumerate(zip(everything, some)):
        if i in wanted:
            numpy.testing.assert_array_equal(actual.grad, expected.grad)
        else:
            assert actual.grad is None


def test_shapes_that_do_not_fit_are_an_error():
    e1, e2, W, V1, V2, b = inputs()
    for wrong in ([e2, e2, W], [e1, e2[:2], W], [e1, e2, W, V2, V1, b], [e1, e2, V1]):
        with pytest.raises(chainer.utils.type_check.InvalidType):
            functions.scaled_bilinear(*wrong)


def test_the_linear_part_is_given_whole_or_not_at_all():
    e1, e2, W, V1, V2, _ = inputs()
    with pytest.raises(ValueError, match='V1, V2 and b are given all or none, not V1 and V2 alone'):
        functions.scaled_bilinear(e1, e2, W, V1, V2)
