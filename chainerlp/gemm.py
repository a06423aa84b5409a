"""Matrix products of float16 factors: accumulated in float32, times a scale, and rounded once.

On the CPU the factors are converted to float32 first and BLAS multiplies them: NumPy's own product
of float16 matrices takes about a hundred times as long. On a GPU cuBLAS takes them as they are, in
tensor cores, and scales and rounds its float32 sums before it writes them.
"""

import contextlib
import functools

from chainerlp.gpu import on_gpu
from chainerlp.rounding import scale_and_round, to_float32

import numpy
from chainer import backend


def factor(array):
    """Returns an array as :func:`multiply` wants it: float32, or float16 on a GPU, as it is."""
    if array.dtype == numpy.float16 and on_gpu(array):
        return array
    return to_float32(array)


def multiply(a, b, scale=1.0, dtype=numpy.float32):
    """Multiplies matrices, or stacks of them, as ``matmul`` does.

    Args:
        a (:ref:`ndarray`): Of shape (..., m, k), a :func:`factor`.
        b (:ref:`ndarray`): Of shape (..., k, n), likewise.
        scale (float or 0-d :ref:`ndarray`): What the float32 sums are multiplied by. On a GPU it
            may be a 0-d float32 array, which is read there.
        dtype: What they are rounded to then: float16 or float32.

    Returns:
        :ref:`ndarray`: The products, of shape (..., m, n).
    """
    if not on_gpu(a):
        return scale_and_round(numpy.matmul(a, b), scale, dtype)
    if not a.dtype == b.dtype == numpy.float16:
        matmul = backend.get_array_module(a).matmul
        return scale_and_round(matmul(to_float32(a), to_float32(b)), scale, dtype)
    return multiply_halves(a, b, scale, dtype)


def multiply_halves(a, b, scale=1.0, dtype=numpy.float32):
    """:func:`multiply` for two float16 arrays on a GPU, by cuBLAS."""
    xp = backend.get_array_module(a)
    stack = numpy.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    (m, k), n = a.shape[-2:], b.shape[-1]
    product = xp.empty((*stack, m, n), dtype)
    if k == 0:
        product.fill(0)
    elif product.size > 0:
        a = xp.broadcast_to(_with_rows(a), (*stack, m, k))
        b = xp.broadcast_to(_with_rows(b), (*stack, k, n))
        _fill(product, a, b, scale)
    return product


def _fill(product, a, b, scale):
    """One call for a stack whose matrices lie at equal distances; several for a stack of stacks."""
    if product.ndim <= 3:
        gemm(product, a, b, scale)
        return
    axis = min(range(product.ndim - 2), key=lambda axis: product.shape[axis])
    for i in range(product.shape[axis]):
        place = (slice(None),) * axis + (i,)
        _fill(product[place], a[place], b[place], scale)


def _with_rows(array):
    """Returns an array whose matrices have rows, or columns, without gaps; a copy if need be."""
    xp = backend.get_array_module(array)
    return array if _layout(array) is not None else xp.ascontiguousarray(array)


def _layout(array):
    """Returns whether a matrix lies in columns, and the distance between its rows or columns.

    ``None`` if its elements do not follow each other in either.
    """
    rows, columns = array.shape[-2:]
    by_row, by_column = (stride // array.itemsize for stride in array.strides[-2:])
    if (by_column == 1 or columns == 1) and (by_row >= columns or rows == 1):
        return False, max(by_row, columns)
    if (by_row == 1 or rows == 1) and (by_column >= rows or columns == 1):
        return True, max(by_column, rows)
    return None


def arguments(product, a, b):
    """Returns what cuBLAS is asked for, which knows matrices by columns only.

    The rows of a product are the columns of its transpose, bᵀ aᵀ, so b comes first; and a matrix
    that lies in rows is its transpose already.

    Args:
        product (:ref:`ndarray`): Of shape (m, n) or (s, m, n); lies in rows.
        a (:ref:`ndarray`): Of shape (m, k) or (s, m, k), float16.
        b (:ref:`ndarray`): Of shape (k, n) or (s, k, n), float16.

    Returns:
        tuple: The sizes (n, m, k); of b, of a and of the product each whether it is to be
        transposed, its leading dimension, and the distance of the matrices of a stack, all in
        elements; and how many matrices there are.
    """
    sizes = (b.shape[-1], a.shape[-2], a.shape[-1])
    operands = []
    for array in (b, a, product):
        transposed, leading = _layout(array)
        distance = array.strides[0] // array.itemsize if array.ndim == 3 else 0
        operands.append((transposed, leading, distance))
    return (sizes, *operands, product.shape[0] if product.ndim == 3 else 1)


_ZERO = numpy.array(0, numpy.float32)
# cuBLAS may else add up partial sums of a product in the type that it is written in. CuPy has no
# name for this flag of cublasMath_t.
_DISALLOW_REDUCED_PRECISION_REDUCTION = 16


def gemm(product, a, b, scale=1.0):
    """Writes the products of float16 matrices, or of a stack of them, times a scale to an array."""
    from cupy.cuda import cublas, device, runtime

    (n, m, k), of_b, of_a, of_product, count = arguments(product, a, b)
    operation = {False: cublas.CUBLAS_OP_N, True: cublas.CUBLAS_OP_T}
    if on_gpu(scale):  # then cuBLAS looks for both of its factors on the device
        mode = cublas.CUBLAS_POINTER_MODE_DEVICE
        scale, zero = scale.astype(numpy.float32, copy=False), _zero_on(product.device.id)
        factors = scale.data.ptr, zero.data.ptr
    else:
        mode = cublas.CUBLAS_POINTER_MODE_HOST
        scale = numpy.array(scale, numpy.float32)
        factors = scale.ctypes.data, _ZERO.ctypes.data
    handle = device.get_cublas_handle()
    with _modes(cublas, handle, mode):
        cublas.gemmStridedBatchedEx(
            handle,
            operation[of_b[0]],
            operation[of_a[0]],
            n,
            m,
            k,
            factors[0],
            b.data.ptr,
            runtime.CUDA_R_16F,
            *of_b[1:],
            a.data.ptr,
            runtime.CUDA_R_16F,
            *of_a[1:],
            factors[1],
            product.data.ptr,
            runtime.CUDA_R_16F if product.dtype == numpy.float16 else runtime.CUDA_R_32F,
            *of_product[1:],
            count,
            cublas.CUBLAS_COMPUTE_32F,
            cublas.CUBLAS_GEMM_DEFAULT_TENSOR_OP,
        )


@functools.cache
def _zero_on(device_id):
    import cupy

    with cupy.cuda.Device(device_id):
        return cupy.zeros((), numpy.float32)


@contextlib.contextmanager
def _modes(cublas, handle, pointer_mode):
    """While it lasts, cuBLAS reads its factors so, and adds up in float32; then it is as it was."""
    pointer_mode_before, math_mode_before = (
        cublas.getPointerMode(handle),
        cublas.getMathMode(handle),
    )
    cublas.setPointerMode(handle, pointer_mode)
    cublas.setMathMode(handle, math_mode_before | _DISALLOW_REDUCED_PRECISION_REDUCTION)
    try:
        yield
    finally:
        cublas.setPointerMode(handle, pointer_mode_before)
        cublas.setMathMode(handle, math_mode_before)
