"""Arrays go to the GPU and come back as they were; CuPy finds all that it needs."""

from chainerlp import compat
from tests.gpu.agreement import CPU

import chainer
import numpy
import pytest
from chainer.backends import cuda
from chainer.dataset import ConcatWithAsyncTransfer, concat_examples

pytestmark = pytest.mark.gpu

VALUES = numpy.arange(24).reshape(2, 3, 4)
SHAPES = {
    'contiguous': lambda x: x,
    'transposed': lambda x: x.transpose(2, 0, 1),
    'in Fortran order': numpy.asfortranarray,
    'every other': lambda x: x[:, ::2, ::-1],
    'empty': lambda x: x[:0],
    'a scalar': lambda x: x[1, 2, 3].reshape(()),
}


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64', 'int32', 'int64', 'bool'])
@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
def test_an_array_comes_back_as_it_was(device, shape, dtype):
    array = shape(VALUES.astype(dtype))
    sent = device.send(array)
    assert isinstance(sent, device.supported_array_types)
    assert chainer.get_device(device) == chainer.backend.get_device_from_array(sent)
    numpy.testing.assert_array_equal(CPU.send(sent), array, strict=True)
    # Something that is computed there from a view of it, too.
    numpy.testing.assert_array_equal(
        CPU.send(sent.T[...] == sent.T), numpy.ones(array.T.shape, '?')
    )


def test_subnormals_and_what_is_not_finite_stay(device):
    array = numpy.arange(2**16, dtype='u2').view('f2')
    sent = device.send(array)
    numpy.testing.assert_array_equal(CPU.send(sent).view('u2'), array.view('u2'))
    # fp16 to float32 and back is exact for all of them but NaNs' payloads.
    wide = CPU.send(sent.astype('f'))
    numpy.testing.assert_array_equal(wide, array.astype('f'))
    numpy.testing.assert_array_equal(CPU.send(device.send(wide).astype('e')), array)


def test_a_model_goes_there_and_back(device):
    with chainer.using_config('dtype', chainer.mixed16):
        model = chainer.Sequential(chainer.links.Linear(3, 4), chainer.links.BatchNormalization(4))
    before = {name: param.array.copy() for name, param in model.namedparams()}
    model.to_device(device)
    assert model.xp is device.xp
    model.to_device(CPU)
    for name, param in model.namedparams():
        numpy.testing.assert_array_equal(param.array, before[name], strict=True)


def test_kernels_compile_and_blas_is_there(device):
    xp = device.xp
    x = xp.arange(6, dtype='f').reshape(2, 3)
    assert CPU.send(x.dot(x.T) + 1).tolist() == [[6, 15], [15, 51]]
    assert compat.why_no_cupy() is None


def test_cudnn_is_off_and_nobody_is_warned(device, recwarn):
    cuda.check_cuda_available()
    assert not chainer.should_use_cudnn('>=auto')
    assert [warning for warning in recwarn if 'cuDNN' in str(warning.message)] == []


def test_batches_that_are_sent_ahead_are_those_that_are_sent_at_once(device):
    random = numpy.random.RandomState(0)
    images = random.standard_normal((4, 256, 3, 32, 32)).astype('e')
    batches = [[(x, numpy.int32(i)) for i, x in enumerate(batch)] for batch in images]
    converter = ConcatWithAsyncTransfer()
    for batch in batches * 5:
        ahead = converter(batch, device.device.id)  # it takes numbers of GPUs only
        at_once = concat_examples(batch, device)
        # The products keep the device busy while the next batch is on its way.
        busy = ahead[0].reshape(256, -1).astype('f')
        for _ in range(20):
            busy = busy.dot(busy.T).dot(busy) * 0
        for actual, expected in zip(ahead, at_once):
            numpy.testing.assert_array_equal(CPU.send(actual), CPU.send(expected), strict=True)
