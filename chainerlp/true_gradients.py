"""The true gradients that variables hold: sums of what arrives, their scales divided out."""

import collections

from chainerlp import gpu
from chainerlp.compat.patching import patch
from chainerlp.gpu import on_gpu
from chainerlp.scaled_array import ScaledArray, are_same

import chainer
import numpy
from chainer import backend
from chainer import variable as chainer_variable
from chainer.backends import cuda


def gradient_of(variable):
    """Returns the gradient that a variable holds, a :class:`ScaledArray`, or ``None``.

    Args:
        variable (~chainer.Variable): A parameter, or another variable.
    """
    if variable.grad is None:
        return None
    scale = variable._loss_scale  # of Chainer's loss.backward(loss_scale=...)
    return ScaledArray(variable.grad, 1.0 if scale is None else scale)


def set_true_gradient(variable, array):
    """Gives a variable its true gradient, which may be float32 where the variable is float16.

    Args:
        variable (~chainer.Variable): A parameter, or another variable.
        array (:ref:`ndarray`): The gradient.
    """
    # Chainer's setter insists on the variable's own dtype, in which small gradients are lost.
    variable._set_grad_without_check(array)
    variable._loss_scale = None


def _allowing_float32(check):
    def check_grad_type(function, x, is_node, gradient):
        is_wide = getattr(gradient, 'dtype', None) == numpy.float32
        if not is_node and is_wide and x.array is not None and x.dtype == numpy.float16:
            gradient = gradient.astype(numpy.float16)  # shape and device are checked as ever
        check(function, x, is_node, gradient)

    return check_grad_type


# So that `param.grad *= rate` works on a gradient of float32, too.
patch(chainer_variable, '_check_grad_type', _allowing_float32)


def true_sum(gradients):
    """Adds gradients of one array, without their scales, in float32.

    Args:
        gradients (list of ScaledArray): At least one; all of one shape.

    Returns:
        :ref:`ndarray`: The sum, float32 (float64 if an array is); a new array, unless there is one
        gradient only, of that dtype, that carries the scale 1.
    """
    first, *others = gradients
    with numpy.errstate(over='ignore', invalid='ignore'):  # a sum that is not finite says so itself
        if not others:
            is_true = first.array.dtype != numpy.float16 and are_same([first.scale, 1.0])
            return first.array if is_true else first.true()
        total = first.true()
        for gradient in others:
            total += gradient.true()
    return total


def true_sums(many):
    """Does :func:`true_sum` for many arrays; on a GPU, of those with one gradient, in one launch.

    Args:
        many (list of list of ScaledArray): As there, for each.

    Returns:
        list of :ref:`ndarray`: As there.
    """
    sums, on_device = [None] * len(many), collections.defaultdict(list)
    for index, gradients in enumerate(many):
        array = gradients[0].array
        device = backend.get_device_from_array(array)
        if len(gradients) == 1 and _is_compact_on_gpu(array) and array.size:
            on_device[device].append(index)
        else:
            with chainer.using_device(device):
                sums[index] = true_sum(gradients)
    for device, indices in on_device.items():
        with chainer.using_device(device):
            found = _true_on_gpu([many[index][0] for index in indices])
        for index, array in zip(indices, found):
            sums[index] = array
    return sums


def _is_compact_on_gpu(array):
    return array.dtype != numpy.float64 and array.flags.c_contiguous and on_gpu(array)


_CUDA_TRUE = r"""
struct Arrays {
    const void* at[90];
    float* out[90];
    index_t size[90];
    const float* scale[90];  // or else, with a null pointer, the number's bits
    unsigned bits[90];
    unsigned char itemsize[90];
};

// Each row of the grid divides the scale out of one array.
extern "C" __global__ void store_true(Arrays arrays) {
    const int k = blockIdx.y;
    const float scale = arrays.scale[k] ? *arrays.scale[k] : __uint_as_float(arrays.bits[k]);
    const float factor = 1.0 / scale;
    const index_t step = (index_t)gridDim.x * THREADS;
    for (index_t i = first_index(); i < arrays.size[k]; i += step) {
        const float x = arrays.itemsize[k] == 2 ? value_of(((const half_bits*)arrays.at[k])[i])
                                                : value_of(((const float*)arrays.at[k])[i]);
        arrays.out[k][i] = x * factor;
    }
}
"""
_ARRAYS = numpy.dtype(
    [('at', 'u8', 90), ('out', 'u8', 90), ('size', 'i8', 90), ('scale', 'u8', 90)]
    + [('bits', 'u4', 90), ('itemsize', 'u1', 90)],
    align=True,
)


def _true_on_gpu(gradients):
    """Returns what :func:`true_sum` does of each."""
    true, rows = [], []
    for gradient in gradients:
        array, scale, bits = gradient.array, gradient.scale, 0
        if array.dtype == numpy.float32 and are_same([scale, 1.0]):
            true.append(array)
            continue
        if on_gpu(scale):
            scale = scale.astype(numpy.float32, copy=False)
        else:
            scale, bits = 0, int(numpy.float32(scale).view(numpy.uint32))
        true.append(cuda.cupy.empty(array.shape, numpy.float32))
        rows.append((array, true[-1], array.size, scale, bits, array.itemsize))
    gpu.launch_for_each(_CUDA_TRUE, 'store_true', _ARRAYS, rows)
    return true
