"""Matrix products: what cuBLAS is asked for, checked by one that reads memory as cuBLAS does."""

import contextlib

from chainerlp import gemm

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided


def by_columns(array, rows, columns, transposed, leading, distance, count):
    """Returns a stack of matrices as cuBLAS sees it from a pointer: element (i, j) at i + j ld."""
    if transposed:
        rows, columns = columns, rows
    assert leading >= max(1, rows)
    strides = [distance * array.itemsize, array.itemsize, leading * array.itemsize]
    stack = as_strided(array, (count, rows, columns), strides)
    return stack.swapaxes(1, 2) if transposed else stack


def reference_gemm(product, a, b, scale):
    (n, m, k), of_b, of_a, of_product, count = gemm.arguments(product, a, b)
    left = by_columns(b, n, k, *of_b, count).astype(numpy.float64)
    right = by_columns(a, k, m, *of_a, count).astype(numpy.float64)
    assert not of_product[0]
    by_columns(product, n, m, *of_product, count)[...] = scale * (left @ right)


LAYOUTS = {
    'rows': lambda a: a.copy(),
    'columns': lambda a: a.swapaxes(-1, -2).copy().swapaxes(-1, -2),
    'a part of wider rows': lambda a: numpy.concatenate([a, a], axis=-1)[..., : a.shape[-1]],
    'every other row': lambda a: numpy.repeat(a, 2, axis=-2)[..., ::2, :],
    'every other column': lambda a: numpy.repeat(a, 2, axis=-1)[..., ::2],
    'backwards': lambda a: a[..., ::-1, :].copy()[..., ::-1, :],
}


@settings(deadline=None, max_examples=300)
@given(
    st.tuples(*[st.integers(1, 4)] * 3),
    st.sampled_from([((), ()), ((3,), (3,)), ((2, 3), (2, 3)), ((1, 3), (2, 1)), ((3,), (2, 3))]),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(['float16', 'float32']),
)
def test_halves_are_multiplied_whatever_their_layout(
    sizes, stacks, layout_of_a, layout_of_b, dtype
):
    m, n, k = sizes
    rng = numpy.random.RandomState(0)
    a = LAYOUTS[layout_of_a](rng.randint(-9, 9, (*stacks[0], m, k)).astype(numpy.float16))
    b = LAYOUTS[layout_of_b](rng.randint(-9, 9, (*stacks[1], k, n)).astype(numpy.float16))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gemm, 'gemm', reference_gemm)
        product = gemm.multiply_halves(a, b, 4.0, dtype)
    assert product.dtype == dtype
    expected = 4 * (a.astype(numpy.float32) @ b.astype(numpy.float32))  # of small integers, exact
    numpy.testing.assert_array_equal(product, expected)


@pytest.mark.parametrize('sizes', [(0, 2, 3), (2, 0, 3), (2, 3, 0)])
def test_products_without_elements_or_terms(sizes):
    m, n, k = sizes
    product = gemm.multiply_halves(numpy.ones((m, k), 'e'), numpy.ones((k, n), 'e'))
    numpy.testing.assert_array_equal(product, numpy.zeros((m, n), 'f'))


def test_on_the_cpu_a_factor_is_float32():
    assert gemm.factor(numpy.ones(3, 'e')).dtype == numpy.float32


@pytest.fixture
def cupy():
    import cupy

    return cupy


SHAPES = [((7, 5), (5, 3)), ((4, 1, 6, 8), (1, 3, 8, 5)), ((1, 1), (1, 1))]


@pytest.mark.gpu
@pytest.mark.parametrize('shapes', SHAPES)
def test_tensor_cores_return_float32_sums(cupy, shapes):
    rng = numpy.random.RandomState(0)
    a, b = (rng.standard_normal(shape).astype(numpy.float16) for shape in shapes)
    product = gemm.multiply(cupy.asarray(a), cupy.asarray(b))
    expected = a.astype(numpy.float64) @ b.astype(numpy.float64)
    # Products of halves are exact in float32; each of k sums is off by 2^-24 of the largest.
    tolerance = 2.0**-24 * shapes[0][-1] * numpy.abs(a).max() * numpy.abs(b).max() * shapes[0][-1]
    numpy.testing.assert_allclose(cupy.asnumpy(product), expected, rtol=0, atol=float(tolerance))


@pytest.mark.gpu
def test_small_products_are_not_rounded_to_half(cupy):
    tiny = cupy.full((16, 16), 2.0**-14, numpy.float16)
    product = gemm.multiply(tiny, tiny)
    assert float(product[0, 0]) == 16 * 2.0**-28  # float16 has nothing so small
    # Nor on the way to a half.
    for scale in (2.0**10, cupy.array(2.0**10, numpy.float32)):
        assert float(gemm.multiply(tiny, tiny, scale, numpy.float16)[0, 0]) == 2.0**-14


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', [numpy.float16, numpy.float32])
@pytest.mark.parametrize('scale', [1.0, 2.0**-17, 2.0**14, 3.0])
@pytest.mark.parametrize('shapes', SHAPES)
def test_the_scale_of_a_product_may_be_on_the_device(cupy, shapes, scale, dtype):
    rng = numpy.random.RandomState(0)
    a, b = (rng.randint(-9, 9, shape).astype(numpy.float16) for shape in shapes)
    exact = scale * (a.astype(numpy.float64) @ b.astype(numpy.float64))  # in float32, too
    with numpy.errstate(over='ignore'):
        expected = exact.astype(dtype)
    # A user's policy may hold its scale in float64.
    for alpha in (scale, cupy.array(scale, numpy.float32), cupy.array(scale, numpy.float64)):
        product = gemm.multiply(cupy.asarray(a), cupy.asarray(b), alpha, dtype)
        assert product.dtype == dtype
        numpy.testing.assert_array_equal(cupy.asnumpy(product), expected)


@pytest.mark.gpu
@pytest.mark.parametrize('is_on_device', [False, True])
@pytest.mark.parametrize('fails', [False, True])
def test_cublas_is_left_in_the_modes_it_was_in(cupy, monkeypatch, is_on_device, fails):
    cublas, handle = cupy.cuda.cublas, cupy.cuda.device.get_cublas_handle()
    names = {False: 'CUBLAS_POINTER_MODE_HOST', True: 'CUBLAS_POINTER_MODE_DEVICE'}
    wanted, other = (getattr(cublas, names[flag]) for flag in (is_on_device, not is_on_device))

    def modes():
        return cublas.getPointerMode(handle), cublas.getMathMode(handle)

    found, call = [], cublas.gemmStridedBatchedEx

    def called(*arguments):
        found.append(modes())
        if fails:
            raise MemoryError
        call(*arguments)

    monkeypatch.setattr(cublas, 'gemmStridedBatchedEx', called)
    ones = cupy.ones((2, 2), numpy.float16)
    scale = cupy.array(2, numpy.float32) if is_on_device else 2.0
    default = modes()
    before = other, cublas.CUBLAS_TENSOR_OP_MATH
    try:
        cublas.setPointerMode(handle, before[0])
        cublas.setMathMode(handle, before[1])
        with pytest.raises(MemoryError) if fails else contextlib.nullcontext():
            gemm.multiply(ones, ones, scale, numpy.float16)
        assert modes() == before
        # No partial sums in float16: CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION.
        assert found == [(wanted, before[1] | 16)]
    finally:
        cublas.setPointerMode(handle, default[0])
        cublas.setMathMode(handle, default[1])
