from experiments.config.errors import DamagedImageError
from experiments.data import load as load_data
from experiments.data.camvid import median_frequency_weights, transform
from experiments.data.randomness import using_epoch
from experiments.data.transforms import Normalization

import numpy
import pytest
from PIL import Image

FLOAT32 = numpy.dtype('float32')
HEIGHT, WIDTH = 6, 10


def label_image(seed, height=HEIGHT, width=WIDTH):
    rng = numpy.random.default_rng(seed)
    return rng.integers(0, 12, (height, width)).astype(numpy.uint8)


@pytest.fixture
def folder(tmp_path, noise):
    """Four frames to train with, two to test with, and the lists of them."""
    for split, seeds in (('train', range(4)), ('test', range(4, 6))):
        lines = []
        (tmp_path / f'{split}annot').mkdir()
        for seed in seeds:
            noise(tmp_path / split / f'{seed}.png', WIDTH, HEIGHT, seed)
            Image.fromarray(label_image(seed)).save(tmp_path / f'{split}annot' / f'{seed}.png')
            lines.append(
                f'/SegNet/CamVid/{split}/{seed}.png /SegNet/CamVid/{split}annot/{seed}.png'
            )
        (tmp_path / f'{split}.txt').write_text('\n'.join(reversed(lines)))
    return tmp_path


@pytest.fixture
def load(section, folder):
    def loaded(**fields):
        given = dict(folder=str(folder), train='train', test='test', crop=None)
        given['normalization'] = 'none'
        return load_data(section(name='camvid', **{**given, **fields}), FLOAT32)

    return loaded


def test_the_lists_say_which_frames_there_are_in_which_order(load, noise, tmp_path):
    data = load()
    assert (len(data.train), len(data.test)) == (4, 2)
    assert (data.shape, data.classes, len(data.class_names)) == ((3, HEIGHT, WIDTH), 11, 11)
    for (image, labels), seed in zip(data.train, (3, 2, 1, 0)):
        pixels = noise(tmp_path / 'again.png', WIDTH, HEIGHT, seed)
        assert image.dtype == FLOAT32 and (image.transpose(1, 2, 0) == pixels).all()
        expected = label_image(seed).astype(int)
        assert (labels == numpy.where(expected == 11, -1, expected)).all()
        assert labels.dtype == numpy.int32 and labels.shape == (HEIGHT, WIDTH)


def test_without_lists_the_folders_say_it(load, folder):
    listed = {labels.tobytes() for _, labels in load().train}
    (folder / 'train.txt').unlink()
    found = load().train
    assert {labels.tobytes() for _, labels in found} == listed and len(found) == 4


def test_frames_are_normalized_by_those_trained_with(load):
    data = load(normalization='data')
    images = numpy.stack([image for image, _ in data.train])
    # Sums of 240 float32 near 1.
    numpy.testing.assert_allclose(images.mean(axis=(0, 2, 3)), 0, atol=1e-6)
    numpy.testing.assert_allclose(images.std(axis=(0, 2, 3)), 1, atol=1e-6)
    pixels = numpy.stack([image for image, _ in load().train])
    numpy.testing.assert_allclose(data.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-6)
    test = numpy.stack([image for image, _ in data.test])
    assert abs(test.mean()) > 1e-4
    assert load(normalization='imagenet').mean == (123.675, 116.28, 103.53)
    assert load().mean is None


@pytest.mark.parametrize('crop', [None, (5, 7)])
def test_labels_follow_the_pixels(crop):
    labels = numpy.random.default_rng(0).integers(-1, 11, (12, 16)).astype(numpy.int32)
    pixels = numpy.repeat((labels + 1).astype(numpy.uint8)[..., None], 3, axis=2)
    normalization = Normalization((0, 0, 0), (1, 1, 1), FLOAT32)
    seen = set()
    for seed in range(50):
        example = Image.fromarray(pixels), labels
        rng = numpy.random.default_rng(seed)
        image, moved = transform(normalization, crop, True, example, rng)
        assert moved.shape == (crop or (12, 16)) and moved.dtype == numpy.int32
        assert (image == moved + 1).all()
        seen.add(moved.tobytes())
    assert len(seen) == 2 if crop is None else len(seen) > 30


def test_rare_classes_weigh_more():
    # Class 0: 60 of 100 pixels of the first image and 20 of 100 of the second; class 1: 20 of the
    # first image only; class 2: nowhere; class 3: 10 of the second. Frequencies 0.4, 0.2, 0.1.
    pixels = numpy.array([[60, 20, 0, 0], [20, 0, 0, 10]])
    weights = median_frequency_weights(pixels, numpy.array([100, 100]))
    numpy.testing.assert_allclose(weights, [0.5, 1, 0, 2], rtol=2**-23)
    assert weights.dtype == numpy.float32
    assert (median_frequency_weights(0 * pixels, numpy.array([100, 100])) == 0).all()


def test_the_weights_are_of_the_frames_trained_with(load):
    labels = numpy.stack([labels for _, labels in load(train_size=2).train])
    frequency = []
    for k in range(11):
        images = [one for one in labels if (one == k).any()]
        frequency.append((labels == k).sum() / sum(one.size for one in images))
    expected = numpy.median(frequency) / frequency
    numpy.testing.assert_allclose(load(train_size=2).class_weights, expected, rtol=2**-22)


def test_crops_differ_with_the_epoch_and_test_frames_stay_whole(load, fails):
    data = load(augment=True, crop=[4, 5])
    assert data.shape == (3, 4, 5)
    seen = set()
    for epoch in range(20):
        with using_epoch(0, epoch):
            image, labels = data.train[0]
            assert image.shape == (3, 4, 5) and labels.shape == (4, 5)
            assert data.test[0][0].shape == (3, HEIGHT, WIDTH)
        seen.add(labels.tobytes())
    # Of 3 x 6 x 2 crops.
    assert len(seen) > 8
    fails('given a crop of 7 x 5', 'at most 6 x 10', crop=[7, 5])


def test_frames_of_different_sizes_need_a_crop(load, fails, folder, noise):
    noise(folder / 'train' / '1.png', 12, 6)
    Image.fromarray(label_image(1, 6, 12)).save(folder / 'trainannot' / '1.png')
    fails('given training frames of 6 x 10 and 6 x 12', 'or a crop')
    assert load(crop=[6, 10]).shape == (3, 6, 10)


def test_a_smaller_setting_has_the_first_of_the_list(load, fails):
    data = load(train_size=1, test_size=1)
    assert (data.train[0][1] == load().train[0][1]).all() and len(data.train) == 1
    fails('train: given 5 examples', 'at most 4', train_size=5)


@pytest.mark.parametrize('part', ['train', 'trainannot', 'test', 'testannot'])
def test_a_missing_file_is_named(fails, folder, part):
    path = next((folder / part).iterdir())
    path.unlink()
    fails(f'{path}: missing; allowed: a folder with train.txt')


def test_a_missing_folder_or_a_strange_list_is_named(fails, folder):
    fails(f'{folder / "dev"}: given no folder', train='dev')
    (folder / 'train.txt').write_text('0.png 0.png\n')
    fails('train.txt, line 1', 'train/NAME.png trainannot/NAME.png')
    (folder / 'train.txt').write_text('')
    fails('train.txt: empty')
    (folder / 'train.txt').write_bytes(b'\xff\xfe\x00')
    fails('train.txt: not text')
    (folder / 'void').mkdir()
    fails(f'{folder / "void"}: given no image', train='void')


def damaged_labels(kind, path):
    if kind == 'colour':
        Image.new('RGB', (WIDTH, HEIGHT)).save(path)
    elif kind == 'size':
        Image.fromarray(label_image(0, 6, 9)).save(path)
    elif kind == 'class':
        Image.fromarray(label_image(0) + 5).save(path)
    elif kind == 'truncated':
        path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize(
    'kind, given',
    [
        ('colour', 'given 3 dimensions of uint8'),
        ('size', 'given 6 x 9 pixels'),
        ('class', 'given class 16, allowed: 0 to 10, and 11 for void'),
        ('truncated', 'damaged image'),
    ],
)
def test_a_damaged_label_image_is_named_or_skipped(load, fails, folder, kind, given):
    path = folder / 'trainannot' / '3.png'
    damaged_labels(kind, path)
    fails(f'{path}: {given}')
    with pytest.warns(UserWarning, match=str(path)):
        data = load(skip_damaged=True)
    with pytest.warns(UserWarning, match=str(path)):
        image, labels = data.train[0]
    # The first of the list is damaged; the second stands in.
    assert (image == data.train[1][0]).all() and (labels == data.train[1][1]).all()


def test_a_damaged_frame_is_named(load, folder, cut):
    path = folder / 'test' / '4.png'
    cut(path)
    data = load()
    with pytest.raises(DamagedImageError, match=f'{path}: damaged image'):
        data.test[1]


def test_the_real_sample_is_labelled_as_camvid_is(load, real):
    data = load(folder=str(real('camvid')))
    assert (len(data.train), len(data.test), data.shape) == (24, 8, (3, 360, 480))
    share = numpy.bincount(
        numpy.concatenate([labels[labels >= 0] for _, labels in data.train]), minlength=11
    )
    share = share / share.sum()
    named = dict(zip(data.class_names, share))
    # Roads, buildings and sky fill most of every street; poles and signs are thin.
    assert named['road'] + named['building'] + named['sky'] > 0.5
    assert named['pole'] < 0.03 and named['sign'] < 0.03
    # The sky is above the road.
    rows = {name: [] for name in ('sky', 'road')}
    for _, labels in data.train:
        for name in rows:
            rows[name].append(numpy.nonzero(labels == data.class_names.index(name))[0].mean())
    assert numpy.mean(rows['sky']) < 120 < 240 < numpy.mean(rows['road'])
