import pathlib

from experiments.config.errors import DamagedImageError
from experiments.data import load as load_data
from experiments.data.randomness import using_epoch

import numpy
import pytest
from scipy import io

FLOAT32 = numpy.dtype('float32')
WNIDS = ['n01', 'n02', 'n03']
# The ILSVRC2012_IDs 1, 2, 3 are classes in another order.
BY_ID = ['n03', 'n01', 'n02']


@pytest.fixture
def folder(tmp_path, noise):
    """Three classes: 4, 3 and 2 images to train with, 2 each to validate."""
    for k, wnid in enumerate(WNIDS):
        for i in range(4 - k):
            noise(tmp_path / 'train' / wnid / f'{wnid}_{i}.JPEG', 20, 16, seed=10 * k + i)
        for i in range(2):
            noise(tmp_path / 'val' / wnid / f'{i}.png', 20, 16, seed=100 + 10 * k + i)
    (tmp_path / 'train' / 'n01' / 'readme.txt').write_text('no image')
    return tmp_path


@pytest.fixture
def flat(folder):
    """The same validation images without class folders: classes 0, 0, 1, 1, 2, 2 by name."""
    for k, wnid in enumerate(WNIDS):
        for i in range(2):
            name = f'ILSVRC2012_val_{2 * k + i}.png'
            (folder / 'val' / wnid / f'{i}.png').rename(folder / 'val' / name)
        (folder / 'val' / wnid).rmdir()
    return folder


@pytest.fixture
def load(section, folder):
    def loaded(**fields):
        given = dict(folder=str(folder), train='train', val='val', size=8)
        given.update(val_labels=None, ilsvrc_classes=None, normalization='channel')
        return load_data(section(name='imagenet', **{**given, **fields}), FLOAT32)

    return loaded


def classes(examples):
    return [int(label) for _, label in examples]


def test_folders_are_classes_in_the_order_of_their_names(load):
    data = load()
    assert classes(data.train) == [0, 0, 0, 0, 1, 1, 1, 2, 2]
    assert classes(data.test) == [0, 0, 1, 1, 2, 2]
    assert (data.shape, data.classes, data.class_names) == ((3, 8, 8), 3, ('n01', 'n02', 'n03'))
    for image, label in (data.train[0], data.test[0]):
        assert image.shape == (3, 8, 8) and image.dtype == FLOAT32 and label.dtype == numpy.int32


def test_training_crops_differ_with_the_epoch_and_test_crops_do_not(load):
    data = load(augment=True)
    seen = {'train': set(), 'test': set()}
    for epoch in range(8):
        with using_epoch(0, epoch):
            seen['train'].add(data.train[0][0].tobytes())
            seen['test'].add(data.test[0][0].tobytes())
    assert len(seen['train']) == 8 and len(seen['test']) == 1


def test_only_the_mean_may_be_subtracted(load):
    (both, _), (only, _) = load().test[0], load(normalization='mean').test[0]
    std = numpy.float32([58.395, 57.12, 57.375])[:, None, None]
    # The difference and its quotient, each rounded to float32.
    numpy.testing.assert_allclose(both * std, only, rtol=2**-22)


def test_a_smaller_setting_has_the_first_of_each_class(load, fails):
    assert classes(load(train_size=5).train) == [0, 0, 1, 1, 2]
    assert classes(load(test_size=3).test) == [0, 1, 2]
    fails('train: given 10 examples', 'at most 9', train_size=10)


def test_a_class_without_validation_images_is_none_and_an_unknown_one_is_an_error(
    load, fails, folder
):
    for path in (folder / 'val' / 'n02').iterdir():
        path.unlink()
    fails(f'{folder / "val" / "n02"}: given no image')
    (folder / 'val' / 'n02').rmdir()
    assert classes(load().test) == [0, 0, 2, 2]
    (folder / 'val' / 'n09').mkdir()
    fails(f'{folder / "val" / "n09"}: given a class that train has not')


@pytest.mark.parametrize('labels', [['n01', 'n01', 'n02', 'n02', 'n03', 'n03'], '001122'])
def test_a_flat_folder_with_a_list_of_names_and_labels(load, flat, labels):
    lines = [f'ILSVRC2012_val_{i}.png {label}\n' for i, label in enumerate(labels)]
    (flat / 'val.txt').write_text(''.join(reversed(lines)))
    data = load(val_labels='val.txt')
    assert classes(data.test) == [2, 2, 1, 1, 0, 0]


def test_a_flat_folder_has_the_same_images(load, folder, request):
    before = load().test
    before = {label: [image for image, k in before if k == label] for label in range(3)}
    flat = request.getfixturevalue('flat')
    (flat / 'val.txt').write_text(''.join(f'ILSVRC2012_val_{i}.png {i // 2}\n' for i in range(6)))
    for i, (image, label) in enumerate(load(val_labels='val.txt').test):
        assert label == i // 2 and (image == before[i // 2][i % 2]).all()


@pytest.mark.parametrize('kind', ['text', 'mat'])
def test_the_official_label_file_counts_classes_in_an_order_of_its_own(load, flat, kind):
    (flat / 'truth.txt').write_text('2\n2\n3\n3\n1\n1\n')
    if kind == 'text':
        order = flat / 'ids.txt'
        order.write_text('\n'.join(BY_ID))
    else:
        order = flat / 'meta.mat'
        synsets = numpy.empty((4, 1), [('ILSVRC2012_ID', object), ('WNID', object)])
        for i, wnid in enumerate([*BY_ID, 'n00']):
            synsets[i, 0] = (numpy.uint8(i + 1), wnid)
        io.savemat(order, {'synsets': synsets})
    data = load(val_labels='truth.txt', ilsvrc_classes=order.name)
    assert classes(data.test) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    'text, parts',
    [
        ('', ['labels.txt: empty']),
        ('a b c\n', ['given [3] words a line']),
        ('ILSVRC2012_val_0.png\nILSVRC2012_val_0.png 1\n', ['given [1, 2] words a line']),
        ('ILSVRC2012_val_9.png 0\n', ['line 1: given ILSVRC2012_val_9.png']),
        ('ILSVRC2012_val_0.png 3\n', ['line 1: given 3', '0 to 2']),
        ('ILSVRC2012_val_0.png 0\n' * 2, ['line 2: given ILSVRC2012_val_0.png again']),
        ('1\n2\n', ['given 2 labels, allowed: 6']),
        ('1\n' * 5 + '7\n', ['line 6: given 7', 'ids.txt']),
    ],
)
def test_a_label_file_that_does_not_fit_is_named(fails, flat, text, parts):
    (flat / 'labels.txt').write_text(text)
    (flat / 'ids.txt').write_text('\n'.join(BY_ID))
    fails('labels.txt', *parts, val_labels='labels.txt', ilsvrc_classes='ids.txt')


def test_what_is_missing_for_a_flat_folder_is_said(fails, flat):
    fails('val: given images without classes', 'val_labels')
    fails('labels.txt: No such file', val_labels='labels.txt')
    (flat / 'labels.txt').write_text('1\n' * 6)
    fails('which need ilsvrc_classes', val_labels='labels.txt')
    (flat / 'meta.mat').write_bytes(b'MATLAB 5.0 MAT-file' + bytes(200))
    files = dict(val_labels='labels.txt', ilsvrc_classes='meta.mat')
    fails('meta.mat: damaged', 'the official meta.mat', **files)
    (flat / 'meta.mat').unlink()
    fails('meta.mat: No such file', **files)


@pytest.mark.parametrize('part', ['train', 'val'])
def test_a_missing_folder_is_named_with_the_layout(fails, folder, part):
    (folder / part).rename(folder / 'elsewhere')
    fails(f'{folder / part}: given no folder', 'train/<wnid>/*.JPEG')


def test_a_damaged_image_is_named_or_skipped(load, folder, cut):
    path = folder / 'train' / 'n01' / 'n01_2.JPEG'
    cut(path)
    with pytest.raises(DamagedImageError, match=f'{path}: damaged image .*[Tt]runcated'):
        load().train[2]
    data = load(skip_damaged=True)
    with pytest.warns(UserWarning, match=f'{path}: damaged image .* stands in for it'):
        image, label = data.train[2]
    assert (image == data.train[3][0]).all() and label == data.train[3][1]
    assert len(data.train) == 9


def test_the_real_sample_shows_real_colours(load, real):
    data = load(folder=str(real('imagenet-sample')), val='train', size=224)
    assert (len(data.train), data.classes) == (100, 100)
    images = numpy.stack([image for image, _ in data.test])
    # Normalized by mean and deviation of ImageNet; of 100 images the mean is within 0.3.
    numpy.testing.assert_allclose(images.mean(axis=(0, 2, 3)), 0, atol=0.3)
    numpy.testing.assert_allclose(images.std(axis=(0, 2, 3)), 1, atol=0.3)
    assert pathlib.Path(real('imagenet-sample') / 'train' / data.class_names[7]).is_dir()
