"""Kernels that name what CuPy 14 does not declare bring the declaration along; no others do."""

from chainerlp.compat import kernel_code

import chainer
import pytest
from chainer.backends import cuda


def declared(*args, **kwargs):
    return args, kwargs


elementwise = kernel_code.with_float16(declared)
raw = kernel_code.with_half(declared)


@pytest.mark.parametrize(
    'args',
    [
        ('raw T a', 'T y', 'float16 *p = reinterpret_cast<float16 *>(a[i]); y = *p;', 'name'),
        ('T x', 'raw T y', 'atomicAdd(&y[0], x)', 'name'),
        ('float16 x', 'T y', 'y = x', 'name'),
    ],
)
def test_what_names_float16_or_atomic_addition_gets_both(args):
    assert elementwise(*args) == (args, {'preamble': kernel_code.FLOAT16})
    assert kernel_code.FLOAT16.count('#include') == 1


def test_it_goes_before_a_preamble_of_ones_own():
    _, kwargs = elementwise(
        'T x', 'raw T y', operation='atomicAdd(&y[0], f(x))', name='name', preamble='T f(T x);'
    )
    assert kwargs['preamble'] == kernel_code.FLOAT16 + 'T f(T x);'


def test_what_is_named_in_a_loop_counts_too():
    _, kwargs = elementwise('T x', 'T y', 'y = z', 'name', loop_prep='float16 z = x[0];')
    assert kwargs['preamble'] == kernel_code.FLOAT16


@pytest.mark.parametrize(
    'args, kwargs',
    [
        (('T x', 'T y', 'y = x', 'name'), {}),
        (('T x', 'T y', 'y = f(x)', 'name'), {'preamble': 'T f(T x);', 'reduce_dims': False}),
        (('T x', 'T y', 'y = bfloat16(x) + my_float16(x)', 'name'), {}),
        (
            ('T x', 'raw T y', 'atomicAdd(&y[0], x)', 'name'),
            {'preamble': '#include <cupy/float16.cuh>'},
        ),
    ],
)
def test_others_stay_as_they_are(args, kwargs):
    assert elementwise(*args, **kwargs) == (args, kwargs)


def test_raw_code_that_names_half_includes_it():
    code = 'extern "C" __global__ void f(half* x) {}'
    assert raw(code, 'f') == ((kernel_code.HALF + code, 'f'), {})
    assert raw(code=code, name='f', options=('-G',)) == (
        (kernel_code.HALF + code,),
        {'name': 'f', 'options': ('-G',)},
    )
    code = 'extern "C" __global__ void f(float* half_of_it) {}'
    assert raw(code, 'f') == ((code, 'f'), {})


@pytest.mark.parametrize('major, replaced', [(13, False), (14, True), (15, True)])
def test_it_is_done_from_cupy_14_on(monkeypatch, major, replaced):
    originals = declared, declared
    monkeypatch.setattr(cuda, 'elementwise', declared)
    monkeypatch.setattr(cuda, 'raw', declared)
    monkeypatch.setattr(cuda, 'available', True)
    monkeypatch.setattr('chainerlp.compat.cupy_presence.major', lambda: major)
    for _ in range(2):
        kernel_code.apply()
    assert ((cuda.elementwise, cuda.raw) != originals) == replaced
    # ChainerMN calls it by this name.
    assert chainer.cuda.raw is cuda.raw
    _, kwargs = cuda.elementwise('float16 x', 'T y', 'y = x', 'name')
    assert kwargs == ({'preamble': kernel_code.FLOAT16} if replaced else {})
