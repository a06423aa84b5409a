"""Matrix products of float16 factors, accumulated and returned in float32.

On the CPU the factors are converted to float32 first and BLAS multiplies them: NumPy's own product
of float16 matrices takes about a hundred times as long. On a GPU cuBLAS takes them as they are, in
tensor cores, and writes the float32 sums, so that a scale can be applied before they are rounded.
"""

from chainerlp.gpu import on_gpu
from chainerlp.rounding import to_float32

import numpy
from chainer import backend


def factor(array):
    """Returns an array as :func:`multiply` wants it: float32, or float16 on a GPU, as it is."""
    if array.dtype == numpy.float16 and on_gpu(array):
        return array
    return to_float32(array)


def multiply(a, b):
    """Multiplies matrices, or stacks of them, as ``matmul`` does.

    Args:
        a (:ref:`ndarray`): Of shape (..., m, k), a :func:`factor`.
        b (:ref:`ndarray`): Of shape (..., k, n), likewise.

    Returns:
        :ref:`ndarray`: The float32 products, of shape (..., m, n).
    """
    if not on_gpu(a):
        return numpy.matmul(a, b)
    if not a.dtype == b.dtype == numpy.float16:
        return backend.get_array_module(a).matmul(to_float32(a), to_float32(b))
    return multiply_halves(a, b)


def multiply_halves(a, b):
    """:func:`multiply` for two float16 arrays on a GPU, by cuBLAS."""
    xp = backend.get_array_module(a)
    stack = numpy.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    (m, k), n = a.shape[-2:], b.shape[-1]
    product = xp.empty((*stack, m, n), numpy.float32)
    if k == 0:
        product.fill(0)
    elif product.size > 0:
        a = xp.broadcast_to(_with_rows(a), (*stack, m, k))
        b = xp.broadcast_to(_with_rows(b), (*stack, k, n))
        _fill(product, a, b)
    return product


def _fill(product, a, b):
    """One call for a stack whose matrices lie at equal distances; several for a stack of stacks."""
    if product.ndim <= 3:
        gemm(product, a, b)
        return
    axis = min(range(product.ndim - 2), key=lambda axis: product.shape[axis])
    for i in range(product.shape[axis]):
        place = (slice(None),) * axis + (i,)
        _fill(product[place], a[place], b[place])


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
        product (:ref:`ndarray`): Of shape (m, n) or (s, m, n), float32; lies in rows.
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


_ONE = numpy.array(1, numpy.float32)
_ZERO = numpy.array(0, numpy.float32)


def gemm(product, a, b):
    """Writes the products of float16 matrices, or of a stack of them, to a float32 array."""
    from cupy.cuda import cublas, device, runtime

    (n, m, k), of_b, of_a, of_product, count = arguments(product, a, b)
    operation = {False: cublas.CUBLAS_OP_N, True: cublas.CUBLAS_OP_T}
    cublas.gemmStridedBatchedEx(
        device.get_cublas_handle(),
        operation[of_b[0]],
        operation[of_a[0]],
        n,
        m,
        k,
        _ONE.ctypes.data,
        b.data.ptr,
        runtime.CUDA_R_16F,
        *of_b[1:],
        a.data.ptr,
        runtime.CUDA_R_16F,
        *of_a[1:],
        _ZERO.ctypes.data,
        product.data.ptr,
        runtime.CUDA_R_32F,
        *of_product[1:],
        count,
        cublas.CUBLAS_COMPUTE_32F,
        cublas.CUBLAS_GEMM_DEFAULT_TENSOR_OP,
    )
