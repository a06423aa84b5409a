import gzip
import re
import tracemalloc

from experiments.config.dataset import Digits
from experiments.config.errors import DataError
from experiments.data import load as load_data

import numpy
import pytest

FLOAT32 = numpy.dtype('float32')
FILES = {
    'train-images-idx3-ubyte': (30, 28, 28),
    'train-labels-idx1-ubyte': (30,),
    't10k-images-idx3-ubyte': (20, 28, 28),
    't10k-labels-idx1-ubyte': (20,),
}


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b''.join(n.to_bytes(4, 'big') for n in array.shape)
    return header + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    """Ten classes in turn; pixel (0, 0) counts the images."""
    for name, shape in FILES.items():
        array = numpy.zeros(shape, numpy.uint8)
        count = numpy.arange(shape[0])
        if array.ndim == 3:
            array[:, 0, 0] = count
            array[0, 27, 27] = 255
        else:
            array[:] = count % 10
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path


@pytest.fixture
def load(section, folder):
    def loaded(dtype=FLOAT32, **fields):
        return load_data(section(name='mnist', folder=str(folder), **fields), dtype)

    return loaded


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_a_pixel_is_divided_by_255_and_rounded_once(load, dtype):
    data = load(numpy.dtype(dtype))
    assert (len(data.train), len(data.test)) == (30, 20)
    assert (data.shape, data.classes) == ((1, 28, 28), 10)
    image, label = data.train[17]
    assert image.shape == (1, 28, 28) and image.dtype == dtype
    assert image[0, 0, 0] == numpy.float32(17 / 255).astype(dtype)
    assert label == 7 and label.dtype == numpy.int32
    assert data.train[0][0][0, 27, 27] == 1


def test_a_gzipped_file_is_the_same(load, folder):
    plain = [image for image, _ in load().train]
    for path in list(folder.iterdir()):
        path.with_name(path.name + '.gz').write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    zipped = [image for image, _ in load().train]
    numpy.testing.assert_array_equal(plain, zipped)


def test_a_smaller_setting_has_the_first_of_each_class(load):
    data = load(train_size=20, test_size=5)
    firsts = [round(float(image[0, 0, 0]) * 255) for image, _ in data.train]
    assert firsts == list(range(20))
    assert [label for _, label in data.test] == [0, 1, 2, 3, 4]


def test_more_examples_than_there_are_is_an_error(fails):
    fails('train-images-idx3-ubyte: given 31', 'at most 30', train_size=31)


@pytest.mark.parametrize('name', FILES)
def test_a_missing_file_is_named(fails, folder, name):
    (folder / name).unlink()
    fails(f'{folder / name} or {folder / name}.gz', 'No such file')


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_named(fails, folder, cut, name, share):
    cut(folder / name, share)
    fails(str(folder / name), 'allowed')


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('share', [0, 0.3, 0.9])
def test_a_truncated_gzip_file_is_named(fails, folder, cut, name, share):
    zipped = folder / f'{name}.gz'
    zipped.write_bytes(gzip.compress((folder / name).read_bytes()))
    (folder / name).unlink()
    cut(zipped, share)
    fails(str(zipped))


def test_bytes_changed_in_a_gzip_file_are_noticed(fails, folder):
    path = folder / 'train-images-idx3-ubyte'
    content = bytearray(gzip.compress(path.read_bytes()))
    content[len(content) // 2] ^= 0xFF
    path.with_name(f'{path.name}.gz').write_bytes(content)
    path.unlink()
    fails(f'{path}.gz: damaged gzip file')


def gzip_bomb(header, blocks=1000):
    """A gzip file of 1 MB for each block; as a file may, it has a member for each."""
    return gzip.compress(header) + gzip.compress(bytes(2**20)) * blocks


@pytest.mark.parametrize('name', FILES)
def test_of_a_gzip_bomb_no_more_is_unpacked_than_its_header_asks_for(fails, folder, name):
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    (folder / f'{name}.gz').write_bytes(gzip_bomb(whole))
    tracemalloc.start()
    try:
        fails(f'{folder / name}.gz: given more bytes than its header asks for, allowed: ')
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize('zipped', [False, True])
@pytest.mark.parametrize(
    'shape, said',
    [
        ((2**32 - 1,) * 3, 'given a header of 4294967295 x 4294967295 x 4294967295 values'),
        ((2**12, 2**10, 2**10), 'given a header of 4096 x 1024 x 1024 values'),
        ((2**20, 28, 28), 'given fewer bytes than its header asks for, allowed: 822083584'),
        ((31, 28, 28), 'given fewer bytes than its header asks for, allowed: 24304'),
        ((29, 28, 28), 'given more bytes than its header asks for, allowed: 22736'),
        ((0, 28, 28), 'given more bytes than its header asks for, allowed: 0'),
    ],
)
def test_a_header_that_does_not_fit_the_file_is_told_and_nothing_made_for_it(
    fails, folder, shape, said, zipped
):
    path = folder / 'train-images-idx3-ubyte'
    content = path.read_bytes()
    sizes = b''.join(n.to_bytes(4, 'big') for n in shape)
    content = content[:4] + sizes + content[16:]
    path.unlink()
    path = path.with_name(f'{path.name}.gz') if zipped else path
    path.write_bytes(gzip.compress(content) if zipped else content)
    tracemalloc.start()
    try:
        fails(f'{path}: {said}')
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_a_file_that_ends_in_its_header_is_told(fails, folder):
    path = folder / 'train-images-idx3-ubyte'
    path.write_bytes(path.read_bytes()[:9])
    fails(f'{path}: given 9 bytes, allowed: a header of 16')


def test_another_magic_number_is_shown_beside_the_right_one(fails, folder):
    path = folder / 't10k-images-idx3-ubyte'
    path.write_bytes(b'\x00\x00\x0d\x03' + path.read_bytes()[4:])
    fails(str(path), '00 00 0d 03', '00 00 08 03')


def test_labels_must_be_as_many_as_images_and_digits(fails, folder):
    path = folder / 'train-labels-idx1-ubyte'
    path.write_bytes(idx(numpy.zeros(29, numpy.uint8)))
    fails(str(path), 'given 29 labels', 'allowed: 30')
    path.write_bytes(idx(numpy.full(30, 10, numpy.uint8)))
    fails(str(path), 'given label 10', '0 to 9')


def test_a_folder_that_is_not_there_is_named_with_the_layout(section):
    with pytest.raises(DataError, match=re.escape('nowhere: given no folder, allowed: a folder')):
        load_data(section(name='mnist', folder='nowhere'), FLOAT32)


def test_the_real_sample_has_every_digit(section, real):
    data = load_data(section(name='mnist', folder=str(real('mnist-10k'))), FLOAT32)
    assert (len(data.train), len(data.test)) == (8000, 2000)
    assert {int(label) for _, label in data.train} == set(range(10))
    pixels = numpy.stack([image for image, _ in data.train])
    # The mean of MNIST's 60,000 training images is 0.1307; these are 8,000 of its test images.
    assert pixels.mean() == pytest.approx(0.1307, abs=0.005)


@pytest.fixture(scope='module')
def digits():
    return load_data(Digits(name='digits'), numpy.dtype('float16'))


def test_the_split_has_every_digit_once_and_each_class_in_proportion(digits):
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert (digits.shape, digits.classes) == ((64,), 10)
    train, test = (numpy.bincount([c for _, c in part]) for part in (digits.train, digits.test))
    numpy.testing.assert_allclose(test / (train + test), 360 / 1797, atol=0.01)


def test_float16_holds_the_pixels_exactly(digits):
    pixels = numpy.stack([x for x, _ in digits.train])
    assert pixels.dtype == numpy.float16
    assert pixels.min() == 0 and pixels.max() == 1
    float32 = load_data(Digits(name='digits'), numpy.dtype('float32'))
    assert (pixels == numpy.stack([x for x, _ in float32.train])).all()


def test_the_split_does_not_depend_on_the_seed_of_the_day(digits):
    numpy.random.seed(1)
    again = load_data(Digits(name='digits'), numpy.dtype('float16'))
    assert [c for _, c in again.test] == [c for _, c in digits.test]


def test_the_size_of_the_test_set_can_be_chosen():
    data = load_data(Digits(name='digits', test_size=100), numpy.dtype('float32'))
    assert (len(data.train), len(data.test)) == (1697, 100)
