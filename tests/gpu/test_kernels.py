"""Each kernel against the NumPy code that it stands beside, on the same arrays."""

from chainerlp import (
    formats,
    gated_update,
    geometry,
    master_weights,
    rounding,
    statistics,
)
from chainerlp.rounding import round_saturating
from chainerlp.scaled_array import ScaledArray, align, join
from chainerlp.true_gradients import true_sums
from tests.gpu.agreement import CPU, NONFINITE, SPECIAL, gradients, scalar

import numpy
import pytest

pytestmark = pytest.mark.gpu

DTYPES = ('float16', 'float32')
# Around a chunk of 16 bytes, a block, a grid of several blocks with a rest.
SIZES = (0, 1, 3, 4, 7, 8, 9, 255, 256, 257, 2047, 2048, 2049, 20011)


def assert_same_statistics(device, sent, array):
    assert float(statistics.largest_magnitude(sent)) == statistics.largest_magnitude(array)
    # On a GPU a chunk of halves is summed in float32 and the chunks in float64; on the CPU a block
    # of 8192 in float32: 2^-24 for each addition, much of which averages out.
    numpy.testing.assert_allclose(
        float(statistics.second_moment(sent)), statistics.second_moment(array), rtol=1e-5
    )


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('size', SIZES)
def test_statistics(device, size, dtype):
    array = gradients(size, dtype)
    assert_same_statistics(device, device.send(array), array)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('value', NONFINITE)
def test_statistics_of_what_is_not_finite(device, value, dtype):
    array = gradients(3000, dtype)
    array[[5, 2999]] = value
    sent = device.send(array)
    numpy.testing.assert_equal(
        [float(statistics.largest_magnitude(sent)), float(statistics.second_moment(sent))],
        [numpy.abs(value)] * 2,
    )


@pytest.mark.parametrize('value', [1e38, 1e-30])
def test_squares_beyond_float32(device, value):
    array = numpy.full(1000, value, numpy.float32)
    found = float(statistics.second_moment(device.send(array)))
    numpy.testing.assert_allclose(found, float(array[0]) ** 2, rtol=1e-14)


def test_the_largest_of_subnormals(device):
    array = numpy.array([2.0**-24, -3 * 2.0**-24, 0], numpy.float16)
    assert float(statistics.largest_magnitude(device.send(array))) == 3 * 2.0**-24


LAYOUTS = {
    'transposed': lambda a: a.T,
    'strided': lambda a: a[::2, ::3],
    'misaligned': lambda a: a[0, 1:],
    'some channels': lambda a: a.reshape(10, 6, 51)[:, 2:4],
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
    assert_same_statistics(device, sent, array)
    whole_sent = device.xp.ascontiguousarray(sent)
    total = join([ScaledArray(sent, 2.0), ScaledArray(whole_sent, 4.0)]).array
    expected = join([ScaledArray(array, 2.0), ScaledArray(array, 4.0)]).array
    assert total.shape == array.shape
    numpy.testing.assert_array_equal(CPU.send(total), expected)
    with numpy.errstate(over='ignore'):
        rescaled = (array.astype(numpy.float32) * 8).astype(dtype)
    numpy.testing.assert_array_equal(CPU.send(ScaledArray(sent, 0.5).to(4.0).array), rescaled)
    if dtype == 'float32':
        halves = rounding.scale_and_round(sent, scalar(device, 8), 'float16')
        numpy.testing.assert_array_equal(CPU.send(halves), by_numpy(array, 8.0, 'float16'))


def by_numpy(array, scale, dtype):
    with numpy.errstate(over='ignore', invalid='ignore'):
        return (array.astype(numpy.float32) * numpy.float32(scale)).astype(dtype)


@pytest.mark.parametrize('scale', [1.0, 2.0**-10, 2.0**14])
@pytest.mark.parametrize('size', SIZES)
def test_scaling_and_rounding(device, size, scale):
    product = gradients(size, 'float32', special=SPECIAL + NONFINITE + (65520.0, 2.0**-25))
    for dtype in DTYPES:
        for given in (scale, scalar(device, scale)):
            found = rounding.scale_and_round(device.send(product.copy()), given, dtype)
            assert found.dtype == dtype
            numpy.testing.assert_array_equal(CPU.send(found), by_numpy(product, scale, dtype))


def test_halves_are_rounded_to_nearest_even(device):
    halves = numpy.arange(0x7C00, dtype=numpy.uint16).view(numpy.float16).astype(numpy.float64)
    ties = ((halves[1:] + halves[:-1]) / 2).astype(numpy.float32)
    products = numpy.concatenate(
        [ties, numpy.nextafter(ties, numpy.float32(0)), numpy.nextafter(ties, numpy.float32(1e9))]
    )
    expected = products.astype(numpy.float16)
    for scale in (1.0, scalar(device, 1)):
        found = rounding.scale_and_round(device.send(products), scale, 'float16')
        numpy.testing.assert_array_equal(CPU.send(found), expected)


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('scale', [1.0, 1024.0])
@pytest.mark.parametrize(
    'stride, pad, dilate, kernel',
    [
        ((1, 1), (1, 1), (1, 1), (3, 3)),
        ((2, 3), (1, 0), (1, 2), (3, 2)),
        ((3, 3), (0, 0), (1, 1), (2, 2)),
    ],
)
def test_columns_are_added_up_to_images(device, stride, pad, dilate, kernel, scale, dtype):
    layer = geometry.Convolution(stride, pad, dilate)
    rng = numpy.random.RandomState(0)
    x = numpy.zeros((2, 3, 9, 11), numpy.float32)
    # Small integers: float32 sums of their products are exact, in any order.
    W = rng.randint(-4, 5, (5, 3, *kernel)).astype(numpy.float32)
    gy = rng.randint(-4, 5, layer.output(x, W).shape).astype(numpy.float32)
    expected = layer.data_gradient(gy, W, (9, 11), scale, dtype)
    found = layer.data_gradient(
        device.send(gy), device.send(W), (9, 11), scalar(device, scale), dtype
    )
    assert found.dtype == dtype
    numpy.testing.assert_array_equal(CPU.send(found), expected)


def joined(device, arrays, scales, function=join):
    """Joins arrays, those whose scale is a NumPy scalar with a scale on the device."""
    sent = [
        ScaledArray(device.send(a), s if isinstance(s, float) else scalar(device, s))
        for a, s in zip(arrays, scales)
    ]
    return function(sent)


def by_join(arrays, scales):
    total = join([ScaledArray(a, float(s)) for a, s in zip(arrays, scales)])
    return total.array, total.scale


@pytest.mark.parametrize('dtype', [*DTYPES, 'float64'])
@pytest.mark.parametrize(
    'scales', [(1.0, 1024.0), (numpy.float32(64), 64.0), (8.0,) * 8, (numpy.float32(4), 2.0) * 17]
)
@pytest.mark.parametrize('size', SIZES[1:])
def test_joining(device, size, scales, dtype):
    arrays = [gradients(size, dtype, seed=seed, special=SPECIAL[:5]) for seed in range(len(scales))]
    total = joined(device, arrays, scales)
    expected, common = by_join(arrays, scales)
    assert float(total.scale) == common and total.array.dtype == dtype
    if len(scales) > 16 and dtype == 'float16':  # in two launches, with other sums in between
        difference = CPU.send(total.array).astype('d') - expected.astype('d')
        assert (abs(difference) <= 2.0**-10 * abs(expected.astype('d')) + 2.0**-24).all()
    else:
        numpy.testing.assert_array_equal(CPU.send(total.array), expected)


@pytest.mark.parametrize('largest', [1.0, 60000.0])
def test_a_sum_is_brought_to_the_largest_scale_at_which_it_does_not_overflow(device, largest):
    arrays = [numpy.array([largest, 1], numpy.float16), numpy.array([largest, 2], numpy.float16)]
    for scales in ((2.0, 2.0), (2.0, 256.0), (numpy.float32(1), numpy.float32(4))):
        total = joined(device, arrays, scales)
        expected, common = by_join(arrays, scales)
        assert float(total.scale) == common
        numpy.testing.assert_array_equal(CPU.send(total.array), expected)


def test_what_is_not_finite_stays_so_in_a_sum(device):
    arrays = [numpy.array([numpy.inf, 1], numpy.float16), numpy.array([1, 2], numpy.float16)]
    total = joined(device, arrays, (2.0, 4.0))
    scale = float(total.scale)
    assert CPU.send(total.array).tolist() == [numpy.inf, scale]


@pytest.mark.parametrize('scales', [(2.0, 1024.0), (numpy.float32(2), 1024.0), (1.0, 2.0**-20)])
def test_aligning(device, scales):
    arrays = [gradients(300, 'float16'), gradients(7, 'float32', special=(1e-10, 3e3))]
    expected = align([ScaledArray(a, float(s)) for a, s in zip(arrays, scales)])
    found = joined(device, arrays, scales, align)
    for ours, theirs in zip(found, expected):
        assert float(ours.scale) == theirs.scale
        numpy.testing.assert_array_equal(CPU.send(ours.array), theirs.array)


@pytest.mark.parametrize('format', ['float16', 'bfloat16', 'float8_e5m2', 'float8_e4m3', 'float32'])
@pytest.mark.parametrize('size', SIZES)
def test_rounding_losses(device, size, format):
    format = formats.get(format)
    special = [format.underflow_threshold, format.overflow_threshold, *SPECIAL, *NONFINITE]
    special.append(2.0**-149)  # a subnormal of float32
    with numpy.errstate(over='ignore'):
        special = numpy.array(special, numpy.float32)
        special = [*special, *numpy.nextafter(special[:2], numpy.float32(0)), -special[0]]
    product = gradients(size, 'float32', special=tuple(special))
    found = statistics.count_underflow_and_overflow(device.send(product), format)
    expected = statistics.count_underflow_and_overflow(product, format)
    assert [int(count) for count in found] == list(expected)


@pytest.mark.parametrize('size', SIZES)
def test_exponent_counts(device, size):
    array = gradients(size, 'float32', special=SPECIAL + NONFINITE + (1.0, 2.0**-149, 3e38))
    found = statistics.exponent_counts(device.send(array))
    numpy.testing.assert_array_equal(CPU.send(found), statistics.exponent_counts(array))


def are_all_finite(arrays, scales=None):
    return bool(statistics.all_arrays_finite(arrays, scales or [1.0] * len(arrays)))


@pytest.mark.parametrize('dtypes', [('float16',), ('float32',), ('float64', 'float16', 'float32')])
def test_whether_all_arrays_are_finite(device, dtypes):
    sizes = (1, 5000, 0, 17)
    arrays = [gradients(size, dtype) for size in sizes for dtype in dtypes]
    sent = [device.send(array) for array in arrays]
    assert are_all_finite(sent)
    for k, array in enumerate(arrays):
        for place in {0, array.size // 2, array.size - 1} & set(range(array.size)):
            for value in NONFINITE:
                damaged = array.copy()
                damaged[place] = value
                others = sent[:k] + [device.send(damaged)] + sent[k + 1 :]
                assert not are_all_finite(others)


@pytest.mark.parametrize('is_on_device', [False, True])
@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_a_scale_may_take_an_array_out_of_float32(device, dtype, is_on_device):
    array = numpy.array([1, 65504], dtype)
    scales = {2.0**-112: True, 2.0**-113: False, 2.0**-126: False, 2.0**100: True}
    for scale, is_finite in scales.items():
        assert are_all_finite([array], [scale]) is is_finite
        on_device = scalar(device, scale) if is_on_device else scale
        assert are_all_finite([device.send(array)] * 2, [1.0, on_device]) is is_finite


def test_more_arrays_than_a_launch_takes_are_all_looked_at(device):
    arrays = [device.send(numpy.ones(3, numpy.float16)) for _ in range(401)]
    assert are_all_finite(arrays)
    arrays[-1][1] = numpy.nan
    assert not are_all_finite(arrays)


@pytest.mark.parametrize('is_right', [False, True])
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
    flag = device.send(numpy.array(is_right))
    gated_update.copy_unless(flag, originals, copies)
    for array, original in zip(whole, originals):
        expected = 0 * array if is_right else array
        numpy.testing.assert_array_equal(CPU.send(original), expected)


@pytest.mark.parametrize('size', [1, 5, 4099, 8192, 20011])
def test_masters_take_over_what_was_changed(device, size):
    master = gradients(size, 'float32', special=(1e-9, 3.14159, -0.0))
    half = master.astype(numpy.float16)
    changed = half.copy()
    changed[::3] = numpy.clip(changed[::3], -0.01, 0.01)
    expected = master.copy()
    master_weights.take_over_changes([expected], [changed])
    assert (expected[changed == half] == master[changed == half]).all()
    assert (expected[changed != half] == changed[changed != half]).all()
    sent, written = device.send(master), device.send(numpy.zeros(size, 'e'))
    checksums = device.send(numpy.zeros(-(-size // 4096), numpy.uint64))
    assert not bool(master_weights.store_rounded([sent], [written], [checksums]))
    numpy.testing.assert_array_equal(CPU.send(written), half)
    layout = device.send(numpy.stack([changed, changed], 1))[:, 0]  # every other element
    for of_device in (device.send(changed), layout):
        for known in (None, checksums):
            found = device.send(master)
            pairs = [found, sent], [of_device, written], [known, known]
            master_weights.take_over_changes(*pairs)
            numpy.testing.assert_array_equal(CPU.send(found), expected)
            numpy.testing.assert_array_equal(CPU.send(sent), master)


def test_where_a_half_is_what_was_stored_its_master_is_not_looked_at(device):
    half = device.send(gradients(20011, 'float16'))
    checksums = device.send(numpy.zeros(5, numpy.uint64))
    master_weights.store_rounded([half.astype('f')], [half], [checksums])
    other = device.send(numpy.ones(20011, 'f'))
    master_weights.take_over_changes([other], [half], [checksums])
    assert (CPU.send(other) == 1).all()
    random = numpy.random.RandomState(0)
    for k in range(200):  # whatever changes is seen, in that chunk alone
        changed = half.copy()
        place = random.randint(20000)
        if k % 3 == 2:  # two words change their places
            word = place // 4 * 4 % 4096
            words = slice(word, word + 4), slice(4092, 4096)
            changed[words[0]], changed[words[1]] = half[words[1]], half[words[0]]
            place = 0
        elif k % 3:
            changed[place] *= -1
            changed[place ^ 4] *= -1  # of the same place in another word
        else:
            changed[place] += 1
        found = other.copy()
        master_weights.take_over_changes([found], [changed], [checksums])
        chunk = slice(place // 4096 * 4096, place // 4096 * 4096 + 4096)
        expected = CPU.send(other)
        if (CPU.send(changed).view('u2') != CPU.send(half).view('u2')).any():
            expected[chunk] = CPU.send(changed)[chunk]
        numpy.testing.assert_array_equal(CPU.send(found), expected)


@pytest.mark.parametrize('name', ['float16', 'bfloat16', 'float8_e5m2', 'float8_e4m3'])
@pytest.mark.parametrize('scale', [1.0, 2.0**20, 0.37])
def test_rounding_saturates(device, name, scale):
    random = numpy.random.RandomState(0)
    exponents = random.randint(127 - 60, 127 + 40, 5000).astype(numpy.uint32)
    bits = (exponents << 23) | random.randint(0, 1 << 23, 5000).astype(numpy.uint32)
    array = numpy.concatenate([bits.view(numpy.float32), [0, -0.0, numpy.inf, -numpy.inf, 1e38]])
    array = (array * random.choice([-1, 1], array.size)).astype(numpy.float32)
    format = formats.get(name)
    expected, count = round_saturating(array, format, scale, saturated=3)
    on_device = device.send(numpy.array(scale, numpy.float32))
    for by in (scale, on_device):
        inverse = scalar(device, 0)
        rounded, saturated = round_saturating(device.send(array), format, by, 3, inverse)
        assert float(inverse) == 1 / numpy.float32(scale)
        assert rounded.dtype == ('float16' if name == 'float16' else 'float32')
        numpy.testing.assert_array_equal(CPU.send(rounded), expected)
        assert int(saturated) == count
        assert count > 3 or name == 'bfloat16'
    _, again = round_saturating(device.send(array), format, scale, saturated)
    assert again is saturated  # nothing is waited for
    assert int(again) == 2 * count - 3


def test_true_gradients_of_many_parameters(device):
    """Of every dtype and layout, with scales on the device and off it, in two launches and more."""
    cases = [
        (numpy.float16, (5,), 8.0, False),
        (numpy.float16, (3, 4), 3.0, True),
        (numpy.float16, (1000, 301), 2.0**-20, True),
        (numpy.float16, (), 4.0, True),
        (numpy.float32, (7,), 2.0**100, True),
        (numpy.float32, (7,), 1.0, False),
        (numpy.float64, (7,), 5.0, False),
        (numpy.float16, (0, 3), 5.0, True),
    ]
    rng = numpy.random.RandomState(0)
    many, sent, given = [], [], []
    for dtype, shape, scale, is_on_device in cases * 30:
        array = rng.standard_normal(shape).astype(dtype)
        many.append([ScaledArray(array, scale)])
        on_device = device.send(array)
        given.append(on_device)
        of_device = ScaledArray(on_device, scalar(device, scale) if is_on_device else scale)
        sent.append([of_device])
    # Two gradients, and one that is no row in memory.
    half = rng.standard_normal((6, 4)).astype(numpy.float16)
    many += [[ScaledArray(half, 2.0), ScaledArray(half, 4.0)], [ScaledArray(half.T, 2.0)]]
    on_device = device.send(half)
    sent += [
        [ScaledArray(on_device, 2.0), ScaledArray(on_device, 4.0)],
        [ScaledArray(on_device.T, 2.0)],
    ]
    found = true_sums(sent)
    for array, true, expected in zip(given, found, true_sums(many)):
        assert array is not true or (array.dtype != numpy.float16)
        assert true.dtype == expected.dtype
        numpy.testing.assert_array_equal(CPU.send(true), expected)
    for true, expected in zip(found[-2:], true_sums(many[-2:])):
        numpy.testing.assert_array_equal(CPU.send(true), expected)
