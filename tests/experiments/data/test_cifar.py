import os
import pickle
import struct
import subprocess
import sys

from experiments.data import load as load_data
from experiments.data.randomness import using_epoch

import numpy
import pytest

FLOAT32 = numpy.dtype('float32')
PARTS = [f'data_batch_{i}' for i in range(1, 6)]
NAMES = [b'airplane', b'automobile', b'bird', b'cat', b'deer', b'dog', b'frog', b'horse']


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, and arrays as the NumPy of that time."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + struct.pack('<i', len(value)) + value)

    def save_global(self, value, name=None):
        if value.__name__ == '_reconstruct':
            self.write(b'cnumpy.core.multiarray\n_reconstruct\n')
        else:
            super().save_global(value, name)

    dispatch[bytes] = save_bytes
    dispatch[type(numpy.zeros(0).__reduce__()[0])] = save_global


def rows(count, seed):
    return numpy.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=numpy.uint8)


def write(path, content, pickler=pickle.Pickler):
    path.parent.mkdir(exist_ok=True)
    with open(path, 'wb') as file:
        pickler(file, 2).dump(content)


@pytest.fixture
def folder(tmp_path):
    """CIFAR-10, ten images a file, one of each class; CIFAR-100, a hundred."""
    ten = tmp_path / 'cifar-10-batches-py'
    for seed, name in enumerate([*PARTS, 'test_batch']):
        write(ten / name, {b'data': rows(10, seed), b'labels': list(range(10))})
    write(ten / 'batches.meta', {b'label_names': [*NAMES, b'ship', b'truck'], b'num_vis': 3072})
    hundred = tmp_path / 'cifar-100-python'
    for seed, name in enumerate(['train', 'test']):
        coarse = [0] * 100
        content = {b'data': rows(100, seed), b'fine_labels': list(range(100))}
        write(hundred / name, {**content, b'coarse_labels': coarse})
    return tmp_path


@pytest.fixture
def load(section, folder):
    def loaded(**fields):
        given = dict(classes=10, folder=str(folder), normalization='channel')
        return load_data(section(name='cifar', **{**given, **fields}), FLOAT32)

    return loaded


def test_five_batches_are_joined_in_their_order(load):
    data = load()
    assert (len(data.train), len(data.test), data.shape) == (50, 10, (3, 32, 32))
    stored = numpy.concatenate([rows(10, seed) for seed in range(5)]).reshape(-1, 3, 32, 32)
    mean = stored.mean(axis=(0, 2, 3), keepdims=True)
    std = stored.std(axis=(0, 2, 3), keepdims=True)
    images = numpy.stack([image for image, _ in data.train])
    # float32 keeps 24 bits; what is left of a pixel after subtracting the mean is under 4 std.
    numpy.testing.assert_allclose(images, (stored - mean) / std, rtol=0, atol=2**-21)
    numpy.testing.assert_allclose(data.mean, mean.ravel(), rtol=1e-12)
    assert [label for _, label in data.train] == list(range(10)) * 5
    assert data.class_names[:2] == ('airplane', 'automobile')


def test_the_test_images_are_normalized_as_the_training_images(load):
    data = load()
    stored = rows(10, 5).reshape(-1, 3, 32, 32)
    # Two pixels tell mean and deviation: the same for both sets.
    for images, pixels in ((data.test, stored), (data.train, rows(10, 0).reshape(-1, 3, 32, 32))):
        image = images[3][0][0].astype(float).ravel()
        slope, offset = numpy.polyfit(pixels[3][0].ravel().astype(float), image, 1)
        assert -offset / slope == pytest.approx(data.mean[0], abs=1e-3)


def test_the_mean_image_can_be_subtracted(load):
    data = load(normalization='pixel')
    stored = numpy.concatenate([rows(10, seed) for seed in range(5)]).reshape(-1, 3, 32, 32)
    images = numpy.stack([image for image, _ in data.train])
    assert data.mean.shape == (3, 32, 32)
    # (0 to 255 - mean) / 255, each step rounded to 24 bits.
    numpy.testing.assert_allclose(images, (stored - stored.mean(axis=0)) / 255, rtol=0, atol=2**-22)


def test_cifar_100_has_its_fine_labels(load):
    data = load(classes=100)
    assert data.classes == 100 and data.class_names is None
    assert [label for _, label in data.train] == list(range(100))


def test_the_folder_may_be_the_official_one(load, folder):
    inside = load(folder=str(folder / 'cifar-10-batches-py'))
    numpy.testing.assert_array_equal(inside.train[7][0], load().train[7][0])


def test_files_as_python_2_wrote_them_are_the_same(load, folder):
    before = load()
    for path in (folder / 'cifar-10-batches-py').iterdir():
        content = pickle.loads(path.read_bytes(), encoding='bytes')
        write(path, content, Python2Pickler)
        assert b'numpy.core' in path.read_bytes() or path.name == 'batches.meta'
        assert b'_codecs' not in path.read_bytes()
    after = load()
    assert after.class_names == before.class_names
    for (image, label), (other, same) in zip(before.train, after.train):
        assert (image == other).all() and label == same


def test_a_smaller_setting_has_the_first_of_each_class(load):
    data = load(train_size=20, test_size=5)
    assert [label for _, label in data.train] == list(range(10)) * 2
    assert len(data.test) == 5


def test_each_epoch_shifts_and_flips_an_image_differently(load):
    data = load(augment=True)
    plain = load().train[4][0]
    padded = numpy.pad(plain, ((0, 0), (4, 4), (4, 4)))
    seen = set()
    for epoch in range(20):
        with using_epoch(0, epoch):
            image, label = data.train[4]
        places = [
            (top, left, flipped)
            for top in range(9)
            for left in range(9)
            for flipped in (False, True)
            if (
                image[..., :: -1 if flipped else 1] == padded[:, top : top + 32, left : left + 32]
            ).all()
        ]
        assert len(places) == 1 and label == 4
        seen.update(places)
    assert len(seen) > 10 and {flipped for _, _, flipped in seen} == {False, True}


@pytest.mark.parametrize('name', [*PARTS, 'test_batch'])
def test_a_missing_or_truncated_batch_is_named(fails, folder, cut, name):
    path = folder / 'cifar-10-batches-py' / name
    cut(path)
    fails(f'{path}: damaged', 'cifar-10-batches-py')
    path.unlink()
    fails(f'{path}: No such file', 'cifar-10-batches-py with data_batch_1')


def nested(levels):
    """Lists of 2^levels items, of which each but the first is its neighbour's."""
    value = [0]
    for _ in range(levels):
        value = [value, value]
    return value


@pytest.mark.parametrize('name', [nested(100), 7, None])
def test_the_names_of_the_classes_are_text(fails, folder, name):
    path = folder / 'cifar-10-batches-py' / 'batches.meta'
    write(path, {b'label_names': [b'x'] * 9 + [name]})
    fails(f'{path}: given no 10 names under label_names')


@pytest.mark.parametrize(
    'content, given',
    [
        ([1, 2], 'it holds no dict'),
        ({b'labels': [0]}, 'given no array of bytes under data'),
        ({b'data': rows(1, 0).astype(float), b'labels': [0]}, 'given no array of bytes'),
        ({b'data': rows(1, 0)[:, :100], b'labels': [0]}, 'given data of shape (1, 100)'),
        ({b'data': rows(2, 0), b'labels': [0]}, 'given no 2 classes under labels'),
        ({b'data': rows(2, 0)}, 'given no 2 classes under labels'),
        ({b'data': rows(1, 0), b'labels': [10]}, 'given class 10, allowed: 0 to 9'),
        ({b'data': rows(1, 0), b'labels': [None]}, 'given class None'),
        ({b'data': rows(1, 0), b'labels': [b'x' * 10**6]}, "given class b'xxx"),
        ({b'data': rows(1, 0), b'labels': [nested(100)]}, 'given class [[['),
    ],
)
def test_a_pickle_of_something_else_is_named(fails, folder, content, given):
    path = folder / 'cifar-10-batches-py' / 'data_batch_3'
    write(path, content)
    fails(str(path), given)


def test_what_the_project_s_tool_unpacks_can_be_read(load, real, tmp_path):
    tool = real('.').parent / 'tools' / 'unpack_cifar10.py'
    if not tool.exists():
        pytest.skip(f'no {tool}')
    arguments = [sys.executable, tool, tmp_path / 'real', '--train', '200', '--test', '100']
    subprocess.run(arguments, check=True, capture_output=True, env=os.environ)
    data = load(folder=str(tmp_path / 'real'))
    assert (len(data.train), len(data.test)) == (200, 100)
    images = numpy.stack([image for image, _ in data.train])
    # Normalized; sums of 200 x 1024 float32.
    numpy.testing.assert_allclose(images.mean(axis=(0, 2, 3)), 0, atol=1e-4)
    numpy.testing.assert_allclose(images.std(axis=(0, 2, 3)), 1, atol=1e-4)
    # The mean colour of CIFAR-10's 50,000 images is (125.3, 123.0, 113.9), their std about 62.
    numpy.testing.assert_allclose(data.mean, (125.3, 123.0, 113.9), atol=10)
