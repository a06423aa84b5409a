"""The true gradients that variables hold: sums of what arrives, their scales divided out.

A float16 gradient of a parameter is held as it arrives, at its scale, until somebody reads
``param.grad``: the true one takes twice as much memory.
"""

import collections
from typing import Optional

from chainerlp import gpu, statistics
from chainerlp.compat.patching import patch
from chainerlp.gpu import on_gpu
from chainerlp.scaled_array import ScaledArray, are_same
from chainerlp.types import Array

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
    if is_held_scaled(variable):
        return vars(variable)['_grad']
    if variable.grad is None:
        return None
    scale = variable._loss_scale  # of Chainer's loss.backward(loss_scale=...)
    return ScaledArray(variable.grad, 1.0 if scale is None else scale)


def unscaled_grad(param: chainer.Variable) -> Optional[Array]:
    """Returns the true gradient of a parameter.

    Args:
        param (~chainer.Variable): A parameter after a backward pass, by :func:`backward` or
            Chainer's own.

    Returns:
        :ref:`ndarray`: A new float32 array (float64 for a float64 gradient), or ``None`` if there
        is no gradient.
    """
    gradient = gradient_of(param)
    return None if gradient is None else gradient.true()


class _Gradient:
    """Stands for Chainer's attribute ``_grad`` of parameters: forms what is held when it is read.

    All that reads a gradient, ``param.grad``, copies, pickles, comes by here.
    """

    def __get__(self, param, owner=None):
        gradient = self if param is None else vars(param).get('_grad')
        if isinstance(gradient, ScaledArray):
            with chainer.using_device(backend.get_device_from_array(gradient.array)):
                gradient = vars(param)['_grad'] = true_sum([gradient])
        return gradient

    def __set__(self, param, gradient):
        vars(param)['_grad'] = gradient


chainer.Parameter._grad = _Gradient()  # type: ignore[assignment]


def is_held_scaled(variable):
    """Returns whether a variable's gradient has not been read since :func:`hold`."""
    return isinstance(vars(variable).get('_grad'), ScaledArray)


def can_be_held(variable, gradient):
    """Returns whether a variable may :func:`hold` a gradient; others are to be formed at once."""
    array = gradient.array
    # A part of a larger array, such as the gradient of a split, would keep all of that.
    is_whole = array.base is None or getattr(array.base, 'nbytes', None) == array.nbytes
    return isinstance(variable, chainer.Parameter) and array.dtype == numpy.float16 and is_whole


def hold(param, gradient):
    """Gives a parameter a gradient, of which ``param.grad`` will be the true one, when it is read.

    Args:
        param (~chainer.Parameter): The parameter.
        gradient (ScaledArray): The gradient, in an array that nobody writes to.
    """
    set_true_gradient(param, gradient)


def form(params):
    """Gives parameters their true gradients; on a GPU in one launch.

    Args:
        params (list of ~chainer.Parameter): Parameters; those without a gradient keep none.

    Returns:
        list of tuple: Each parameter whose gradient was held at a scale, what was held, and what
        has been formed of it.
    """
    found = [(param, gradient_of(param)) for param in params]
    found = [(param, gradient) for param, gradient in found if gradient is not None]
    formed = []
    for (param, gradient), true in zip(found, true_sums([[gradient] for _, gradient in found])):
        if true is not gradient.array:
            if is_held_scaled(param):
                formed.append((param, gradient, true))
            set_true_gradient(param, true)
    return formed


def hold_again(formed):
    """Takes back what :func:`form` has formed, where it is what the parameter still has."""
    for param, gradient, true in formed:
        if vars(param)['_grad'] is true:
            hold(param, gradient)


def are_finite(params):
    """Returns whether the true gradients of parameters have neither an inf nor a NaN.

    Args:
        params (list of ~chainer.Parameter): Parameters with gradients, all on one device.

    Returns:
        bool or 0-d bool array: The answer; a bool on the CPU.
    """
    gradients = [gradient_of(param) for param in params]
    arrays, scales = [g.array for g in gradients], [g.scale for g in gradients]
    return statistics.all_arrays_finite(arrays, scales)


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
    int itemsize[90], begin[90];
};

extern "C" __global__ void store_true(Arrays arrays) {
    const Share share = share_of(arrays.begin);
    const int k = share.k;
    const float scale = arrays.scale[k] ? *arrays.scale[k] : __uint_as_float(arrays.bits[k]);
    const float factor = 1.0 / scale;
    for (index_t i = share.first; i < arrays.size[k]; i += share.all) {
        const float x = arrays.itemsize[k] == 2 ? value_of(((const half_bits*)arrays.at[k])[i])
                                                : value_of(((const float*)arrays.at[k])[i]);
        arrays.out[k][i] = x * factor;
    }
}
"""
_ARRAYS = numpy.dtype(
    [('at', 'u8', 90), ('out', 'u8', 90), ('size', 'i8', 90), ('scale', 'u8', 90)]
    + [('bits', 'u4', 90), ('itemsize', 'i4', 90), ('begin', 'i4', 90)]
)


def _true_on_gpu(gradients):
    """Returns what :func:`true_sum` does of each."""
    true, rows = [], []
    for gradient in gradients:
        array, scale = gradient.array, gradient.scale
        if array.dtype == numpy.float32 and are_same([scale, 1.0]):
            true.append(array)
            continue
        true.append(cuda.cupy.empty(array.shape, numpy.float32))
        rows.append((array, true[-1], array.size, *gpu.scalar_of(scale), array.itemsize))
    gpu.launch_for_each(_CUDA_TRUE, 'store_true', _ARRAYS, rows)
    return true
