"""Each CUDA kernel against the NumPy function that it stands beside.

On a GPU where there is one; everywhere else compiled for the host (``cuda_on_host``), which shows
all but what only a device can: its own conversions and square root, its scheduling, its speed.
"""

import pathlib
import shutil
import subprocess
import sys

from chainerlp import compat, formats, kernels, policies
from chainerlp.kernels import (
    choice,
    copying,
    counts,
    cuda,
    finite,
    joining,
    losses,
    masters,
    scaling,
)
from chainerlp.kernels import statistics as statistics_kernels

import numpy
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import cuda_on_host  # noqa: E402

DTYPES = ('float16', 'float32')
# Around a chunk of 16 bytes, a block, a grid of several blocks with a rest.
SIZES = (0, 1, 3, 4, 7, 8, 9, 255, 256, 257, 2047, 2048, 2049, 20011)
SPECIAL = (0.0, -0.0, 2.0**-24, -(2.0**-24), 2.0**-14, 65504.0, -65504.0)
NONFINITE = (numpy.inf, -numpy.inf, numpy.nan)


class _Host:
    send = staticmethod(numpy.array)
    fetch = staticmethod(numpy.asarray)
    empty = staticmethod(numpy.empty)


class _GPU:
    def __init__(self, cupy):
        self.send = cupy.asarray
        self.fetch = cupy.asnumpy
        self.empty = cupy.empty


@pytest.fixture(params=['host', pytest.param('gpu', marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    if request.param == 'gpu':
        reason = compat.why_no_cupy()
        if reason is not None:
            pytest.skip(reason)
        return _GPU(pytest.importorskip('cupy'))
    if shutil.which('g++') is None:
        pytest.skip('no g++')
    monkeypatch.setattr(cuda, 'launch', cuda_on_host.launch)
    return _Host()


def gradients(size, dtype, *, special=SPECIAL, seed=0):
    """Gradients over 30 powers of two, subnormals and zeros among them."""
    rng = numpy.random.RandomState(seed)
    array = rng.standard_normal(size) * 2.0 ** rng.randint(-26, 4, size)
    with numpy.errstate(over='ignore'):
        array = array.astype(dtype)
    places = rng.permutation(size)[: len(special)]
    array[places] = special[: len(places)]
    return array


def assert_same_statistics(found, expected):
    assert found[1:].tolist() == expected[1:].tolist() or numpy.isnan(expected[1])
    # The square of each value and a sum of eight are rounded to float32 here; there, all sums of a
    # block of 8192: 2^-24 each.
    numpy.testing.assert_allclose(found[0], expected[0], rtol=1e-5)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('size', SIZES)
def test_measure(device, size, dtype):
    array = gradients(size, dtype)
    found = device.fetch(statistics_kernels.on_device(device.send(array)).values)
    assert_same_statistics(found, kernels.measure(array).values)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('value', NONFINITE)
def test_measure_what_is_not_finite(device, value, dtype):
    array = gradients(3000, dtype)
    array[[5, 2999]] = value
    found = device.fetch(statistics_kernels.on_device(device.send(array)).values)
    numpy.testing.assert_array_equal(found, kernels.measure(array).values)


def test_measure_counts_every_half(device):
    array = numpy.arange(1 << 16, dtype=numpy.uint16).view(numpy.float16)
    found = device.fetch(statistics_kernels.on_device(device.send(array)).values)
    assert found[2:].tolist() == [2, 2 * 1023, 2 * 1024]


@pytest.mark.parametrize('value', [1e38, 1e-30])
def test_measure_squares_beyond_float32(device, value):
    array = numpy.full(1000, value, numpy.float32)
    found = device.fetch(statistics_kernels.on_device(device.send(array)).values)
    numpy.testing.assert_allclose(found[0], float(array[0]) ** 2, rtol=1e-14)


LAYOUTS = {
    'transposed': lambda a: a.T,
    'strided': lambda a: a[::2, ::3],
    'misaligned': lambda a: a[0, 1:],
    'reversed': lambda a: a[::-1, ::-1],
    'Fortran': lambda a: a.copy().T.copy().T,
    'of no axes': lambda a: a[1:2, 1].reshape(()),
    'empty': lambda a: a[:0],
}


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('layout', sorted(LAYOUTS))
def test_any_layout_in_memory(device, layout, dtype):
    whole = gradients(60 * 51, dtype).reshape(60, 51)
    array = LAYOUTS[layout](whole)
    sent = LAYOUTS[layout](device.send(whole))
    found = device.fetch(statistics_kernels.on_device(sent).values)
    assert_same_statistics(found, kernels.measure(array).values)
    scale = device.send(numpy.float32(8))
    for sent_dtype in (dtype, 'float16'):
        product = device.fetch(kernels.scaled_on_device(sent, scale, sent_dtype))
        with numpy.errstate(over='ignore'):
            expected = (array.astype(numpy.float32) * 8).astype(sent_dtype)
        numpy.testing.assert_array_equal(product, expected)
    total, _ = join(device, [array, array], [2.0, 4.0], sent=[sent, sent])
    assert total.shape == array.shape


CONSTANTS = [
    kernels.AdaptiveConstants(terms, quantile, 2.0**-24, 65504.0, backoff)
    for terms, quantile, backoff in [(1, 1.25e-3, 1.0), (4608, 1.25e-3, 1.0), (64, 0.67, 2.0**-5)]
]
NO_BOUND = float('inf')
BOUNDS = [
    kernels.Bounds(NO_BOUND, 2.0**126, True),
    kernels.Bounds(16.0, 1024.0, True),
    kernels.Bounds(NO_BOUND, 2.0**126, False),
]


@pytest.mark.parametrize('bounds', BOUNDS)
@pytest.mark.parametrize('constants', CONSTANTS)
@pytest.mark.parametrize('exponent', [-20, -6, 0, 9])
def test_adaptive(device, exponent, constants, bounds):
    rng = numpy.random.RandomState(exponent + 30)
    gy = (rng.standard_normal(500) * 2.0**exponent).astype(numpy.float16)
    W = rng.standard_normal(300).astype(numpy.float32)
    with numpy.errstate(all='ignore'):
        alpha = kernels.adaptive(gy, W, constants)
    expected = kernels.bounded(alpha, 32.0 / constants.backoff, bounds)
    for total_scale in (32.0, device.send(numpy.float32(32))):
        found = kernels.adaptive_on_device(
            device.send(gy), device.send(W), constants, total_scale, bounds
        )
        assert found.dtype == numpy.float32 and found.shape == ()
        # Second moments may differ by 1e-5, and the root of their product by half of that each.
        numpy.testing.assert_allclose(device.fetch(found), expected, rtol=1e-5)


@pytest.mark.parametrize('gy', [[0.0, 0.0], [], [1.0, numpy.nan], [numpy.inf, 1.0], [2.0**-24]])
def test_adaptive_where_the_formula_has_no_answer(device, gy):
    gy = numpy.array(gy, numpy.float16)
    W = numpy.ones(3, numpy.float16)
    with numpy.errstate(all='ignore'):
        alpha = kernels.adaptive(gy, W, CONSTANTS[0])
    expected = kernels.bounded(alpha, 1.0, BOUNDS[0])
    found = kernels.adaptive_on_device(
        device.send(gy), device.send(W), CONSTANTS[0], 1.0, BOUNDS[0]
    )
    assert float(found) == float(expected)


@pytest.mark.parametrize('bounds', BOUNDS)
@pytest.mark.parametrize('scale', [1.0, 3.0, 4.0, 2.0**20, numpy.inf, numpy.nan, 0.0])
def test_bounded(device, scale, bounds):
    sent = device.send(numpy.float32(scale))
    for total_scale in (64.0, device.send(numpy.float32(64))):
        found = kernels.bounded_on_device(sent, total_scale, bounds)
        assert float(found) == float(kernels.bounded(scale, 64.0, bounds))


def test_a_scale_of_a_snapshot_is_bounded_by_what_is_on_the_device(device):
    policy = policies.Adaptive(max_total_scale=1024, interval=10)
    found = policy.within_bounds(16.0, device.send(numpy.array(256, numpy.float32)))
    assert found.dtype == numpy.float32 and float(found) == 4


def test_a_null_pointer_is_no_missing_argument(monkeypatch):
    given = []
    monkeypatch.setattr(cuda, '_kernel', lambda *_: lambda grid, block, args: given.append(args))
    cuda.launch('', 'kernel', 1, None, 2.0, None)
    assert given == [(0, 2.0, 0)]  # CuPy 13 would take None for none at all


@pytest.mark.parametrize('scale', [1.0, 2.0**-10, 2.0**14])
@pytest.mark.parametrize('size', SIZES)
def test_scaled(device, size, scale):
    product = gradients(size, 'float32', special=SPECIAL + NONFINITE + (65520.0, 2.0**-25))
    for dtype in DTYPES:
        expected = kernels.scaled(product.copy(), scale, numpy.dtype(dtype))
        for given in (scale, device.send(numpy.float32(scale))):
            found = kernels.scaled_on_device(device.send(product), given, dtype)
            numpy.testing.assert_array_equal(device.fetch(found), expected)


def test_halves_are_rounded_to_nearest_even(device):
    halves = numpy.arange(0x7C00, dtype=numpy.uint16).view(numpy.float16).astype(numpy.float64)
    ties = ((halves[1:] + halves[:-1]) / 2).astype(numpy.float32)
    products = numpy.concatenate(
        [ties, numpy.nextafter(ties, numpy.float32(0)), numpy.nextafter(ties, numpy.float32(1e9))]
    )
    found = kernels.scaled_on_device(device.send(products), 1.0, 'float16')
    numpy.testing.assert_array_equal(device.fetch(found), products.astype(numpy.float16))


def join(device, arrays, scales, sent=None):
    sent = sent or [device.send(array) for array in arrays]
    scales = [s if isinstance(s, float) else device.send(numpy.float32(s)) for s in scales]
    assert joining.fits_a_launch(sent)
    limit = formats.get(arrays[0].dtype.name).largest
    common = joining.common_scale_on_device(sent, scales, limit)
    total = joining.joined_on_device(sent, scales, common)
    return device.fetch(total), float(common)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('scales', [(1.0, 1024.0), (numpy.float32(64), 64.0), (8.0,) * 8])
@pytest.mark.parametrize('size', SIZES)
def test_join(device, size, scales, dtype):
    arrays = [gradients(size, dtype, seed=seed, special=SPECIAL[:5]) for seed in range(len(scales))]
    total, common = join(device, arrays, scales)
    floats = [float(scale) for scale in scales]
    assert common == kernels.common_scale(arrays, floats)
    terms = [a.astype(numpy.float32) * (common / s) for a, s in zip(arrays, floats)]
    numpy.testing.assert_array_equal(total, sum(terms[1:], terms[0]).astype(dtype))


@pytest.mark.parametrize('largest', [1.0, 60000.0])
def test_the_scale_of_a_join_is_the_largest_at_which_nothing_overflows(device, largest):
    arrays = [numpy.array([largest, 1], numpy.float16), numpy.array([largest, 2], numpy.float16)]
    for scales in ((2.0, 2.0), (2.0, 256.0), (numpy.float32(1), numpy.float32(4))):
        total, common = join(device, arrays, scales)
        assert common == kernels.common_scale(arrays, [float(s) for s in scales])
        assert numpy.isfinite(total).all()


def test_what_is_not_finite_stays_so_in_a_join(device):
    arrays = [numpy.array([numpy.inf, 1], numpy.float16), numpy.array([1, 2], numpy.float16)]
    total, common = join(device, arrays, (2.0, 4.0))
    assert common == 4 and total[0] == numpy.inf and total[1] == 4


@pytest.mark.parametrize('format', ['float16', 'bfloat16', 'float8_e5m2', 'float8_e4m3', 'float32'])
@pytest.mark.parametrize('size', SIZES)
def test_losses(device, size, format):
    format = formats.get(format)
    special = [format.underflow_threshold, format.overflow_threshold, *SPECIAL, *NONFINITE]
    special.append(2.0**-149)  # a subnormal of float32
    with numpy.errstate(over='ignore'):
        special = numpy.array(special, numpy.float32)
        special = [*special, *numpy.nextafter(special[:2], numpy.float32(0)), -special[0]]
    product = gradients(size, 'float32', special=tuple(special))
    found = losses.losses_on_device(device.send(product), format)
    assert [int(count) for count in found] == list(kernels.count_losses(product, format))


@pytest.mark.parametrize('size', SIZES)
def test_exponent_counts(device, size):
    array = gradients(size, 'float32', special=SPECIAL + NONFINITE + (1.0, 2.0**-149, 3e38))
    found = device.fetch(counts.exponent_counts_on_device(device.send(array)))
    numpy.testing.assert_array_equal(found, kernels.exponent_counts(array))


@pytest.mark.parametrize('dtypes', [('float16',), ('float32',), ('float64', 'float16', 'float32')])
def test_all_arrays_finite(device, dtypes):
    sizes = (1, 5000, 0, 17)
    arrays = [gradients(size, dtype) for size in sizes for dtype in dtypes]
    sent = [device.send(array) for array in arrays]
    assert bool(finite.all_finite_on_device(sent)) is True
    for k, array in enumerate(arrays):
        for place in {0, array.size // 2, array.size - 1} & set(range(array.size)):
            for value in NONFINITE:
                damaged = array.copy()
                damaged[place] = value
                others = sent[:k] + [device.send(damaged)] + sent[k + 1 :]
                assert bool(finite.all_finite_on_device(others)) is False


def test_more_arrays_than_a_launch_takes_are_all_looked_at(device):
    arrays = [numpy.ones(3, numpy.float16) for _ in range(2 * finite.ARRAYS_A_LAUNCH + 1)]
    assert bool(finite.all_finite_on_device([device.send(array) for array in arrays])) is True
    arrays[-1][1] = numpy.nan
    assert bool(finite.all_finite_on_device([device.send(array) for array in arrays])) is False


@pytest.mark.parametrize('is_right', [False, True, None])
def test_copies_are_put_back_unless_all_is_right(device, is_right):
    shapes = [(), (5,), (7, 3), (4099,), (0, 2)] * 22  # more than a launch takes
    dtypes = ['float16', 'float32', 'float64', 'int8']
    whole = [
        (numpy.arange(numpy.prod(shape)) % 100).reshape(shape).astype(dtypes[k % 4]) + 1
        for k, shape in enumerate(shapes)
    ]
    whole = [numpy.array(array) for array in whole]
    originals = [device.send(array) for array in whole] + [device.send(whole[2])[:, 1]]
    whole.append(whole[2][:, 1])
    copies = [device.send(array) for array in whole]
    for array in originals:
        array[...] = 0
    flag = is_right
    if flag is None:  # the device knows that all is right
        flag = device.send(numpy.array(True))
    elif not flag:
        flag = device.send(numpy.array(False))
    copying.put_back_on_device(flag, originals, copies)
    for array, original in zip(whole, originals):
        expected = array if is_right is False else 0 * array
        numpy.testing.assert_array_equal(device.fetch(original), expected)


@pytest.mark.parametrize('size', [1, 5, 4099])
def test_masters_take_over_what_was_changed(device, size):
    master = gradients(size, 'float32', special=(1e-9, 3.14159, -0.0))
    half = master.astype(numpy.float16)
    changed = half.copy()
    changed[::3] = numpy.clip(changed[::3], -0.01, 0.01)
    expected = master.copy()
    kernels.renew([expected], [changed])
    assert (expected[changed == half] == master[changed == half]).all()
    assert (expected[changed != half] == changed[changed != half]).all()
    sent = device.send(master)
    layout = device.send(numpy.stack([changed, changed], 1))[:, 0]  # every other element
    for of_device in (device.send(changed), layout):
        found = device.send(master)
        masters.renew_on_device([found, sent], [of_device, device.send(half)])
        numpy.testing.assert_array_equal(device.fetch(found), expected)
        numpy.testing.assert_array_equal(device.fetch(sent), master)


def test_the_arguments_of_every_kernel_fit_into_four_kilobytes():
    structs = [
        copying._COPIES,
        finite._ARRAYS,
        joining._ARRIVALS,
        choice._CONSTANTS,
        choice._BOUNDS,
        losses._LIMITS,
    ]
    assert max(struct.itemsize for struct in structs) + 8 * 8 <= 4096


ARCHITECTURES = ('75', '80', '90', '100')


@pytest.mark.slow
@pytest.mark.parametrize('module', sorted(cuda_on_host.sources()))
def test_nvcc_compiles_the_kernels_for_every_architecture(module, tmp_path):
    nvcc = shutil.which('nvcc') or shutil.which('/usr/local/cuda/bin/nvcc')
    if nvcc is None:
        pytest.skip('no nvcc')
    source = tmp_path / f'{module}.cu'
    source.write_text(cuda.PRELUDE + cuda.SHARED + cuda_on_host.sources()[module])
    targets = [f'-gencode=arch=compute_{sm},code=sm_{sm}' for sm in ARCHITECTURES]
    for target, sm in zip(targets, ARCHITECTURES):
        command = [nvcc, *cuda.OPTIONS, '-Werror=all-warnings', target, '-cubin', str(source)]
        done = subprocess.run(
            [*command, '-o', str(tmp_path / f'sm_{sm}.cubin')], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_every_module_with_kernels_is_compiled():
    with_kernels = {
        path.stem
        for path in pathlib.Path(cuda.__file__).parent.glob('*.py')
        if '__global__' in path.read_text(encoding='utf-8')
    }
    assert with_kernels - {'cuda'} == set(cuda_on_host.sources())
    assert scaling.__name__.endswith('scaling')
