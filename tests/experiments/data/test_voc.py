import functools

from experiments.config.errors import DamagedImageError
from experiments.data import load as load_data
from experiments.data.randomness import using_epoch
from experiments.data.transforms import VGG_MEAN, Normalization
from experiments.data.voc import transform as transform_example

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

FLOAT32 = numpy.dtype('float32')


def object_xml(name='cat', box=(5, 3, 10, 8), difficult=None):
    """A box is (xmin, ymin, xmax, ymax), as in the files."""
    sides = zip(('xmin', 'ymin', 'xmax', 'ymax'), box)
    sides = ''.join(f'<{side}>{value}</{side}>' for side, value in sides)
    hard = '' if difficult is None else f'<difficult>{difficult}</difficult>'
    return f'<object><name>{name}</name>{hard}<bndbox>{sides}</bndbox></object>'


def annotation_xml(*objects, size=(20, 10)):
    width, height = size
    size = f'<size><width>{width}</width><height>{height}</height><depth>3</depth></size>'
    return f'<annotation>{size}{"".join(objects)}</annotation>'


@pytest.fixture
def folder(tmp_path, noise):
    """Two years of two images of 20x10 pixels each, and a test set of one."""
    contents = {
        ('VOC2007', 'a'): [object_xml(), object_xml('dog', (1, 1, 20, 10), difficult=1)],
        ('VOC2007', 'b'): [],
        ('VOC2012', 'a'): [object_xml('bird', (1.4, 1, 1.4, 2), difficult=0)],
        ('VOC2012', 'c'): [object_xml('dog')],
    }
    devkit = tmp_path / 'VOCdevkit'
    for year in ('VOC2007', 'VOC2012'):
        for below in ('Annotations', 'ImageSets/Main'):
            (devkit / year / below).mkdir(parents=True)
    for seed, ((year, name), objects) in enumerate(contents.items()):
        noise(devkit / year / 'JPEGImages' / f'{name}.jpg', 20, 10, seed)
        (devkit / year / 'Annotations' / f'{name}.xml').write_text(annotation_xml(*objects))
    (devkit / 'VOC2007/ImageSets/Main/trainval.txt').write_text('b\na\n')
    (devkit / 'VOC2012/ImageSets/Main/trainval.txt').write_text('a\n')
    (devkit / 'VOC2007/ImageSets/Main/test.txt').write_text('a\n')
    (devkit / 'VOC2012/ImageSets/Main/val.txt').write_text('c\n')
    return devkit


@pytest.fixture
def load(section, folder):
    def loaded(**fields):
        given = dict(
            folder=str(folder), size=30, class_names=None, difficult=False, eleven_point=True
        )
        given.update(train=['VOC2007/trainval', 'VOC2012/trainval'], test=['VOC2007/test'])
        return load_data(section(name='voc', **{**given, **fields}), FLOAT32)

    return loaded


@pytest.fixture
def annotate(folder):
    """Replaces the annotation of the one test image."""

    def write(text):
        path = folder / 'VOC2007' / 'Annotations' / 'a.xml'
        path.write_text(text)
        return path

    return write


def test_years_are_joined_and_names_are_found(load):
    data = load()
    assert (len(data.train), len(data.test)) == (3, 1)
    assert (data.classes, data.class_names) == (3, ('bird', 'cat', 'dog'))
    assert (data.shape, data.mean) == ((3, 30, 30), None)
    assert [labels.tolist() for _, _, labels in data.train] == [[], [1], [0]]


def test_a_box_has_the_edges_of_its_pixels(load):
    image, boxes, labels, difficult = load().test[0]
    assert image.shape == (3, 30, 30) and image.dtype == FLOAT32
    # In the file pixels count from 1 and the last is inside: x 5 to 10 is [4, 10) of 20; then
    # resized from 20x10 to 30x30.
    assert boxes.tolist() == [[2 * 3, 4 * 1.5, 8 * 3, 10 * 1.5], [0, 0, 30, 30]]
    assert boxes.dtype == numpy.float32 and labels.dtype == numpy.int32
    assert labels.tolist() == [1, 2] and difficult.tolist() == [False, True]
    assert difficult.dtype == bool


def test_difficult_objects_are_trained_with_only_if_asked_for(load):
    assert load(difficult=False).train[1][2].tolist() == [1]
    assert load(difficult=True).train[1][2].tolist() == [1, 2]


def test_an_image_without_objects_has_no_boxes(load):
    _, boxes, labels = load(augment=True).train[0]
    assert boxes.shape == (0, 4) and labels.shape == (0,)


def test_class_names_can_be_given_and_must_be_enough(load, fails, folder):
    data = load(class_names=['dog', 'cat', 'bird', 'cow'])
    assert data.classes == 4 and data.test[0][2].tolist() == [1, 0]
    path = folder / 'VOC2007' / 'Annotations' / 'a.xml'
    fails(f'{path}: given class dog, allowed: cat, bird', class_names=['cat', 'bird'])


def test_a_coordinate_with_a_fraction_and_a_box_over_the_edge_are_kept(load, annotate):
    box = object_xml(box=(0, -3.5, 30, 4.5))
    annotate(annotation_xml(box))
    # Clipped to 20x10, resized to 30x30.
    numpy.testing.assert_array_equal(load().test[0][1], [[0, 0, 13.5, 30]])


def test_the_image_is_resized_and_left_in_units_of_pixels(load, folder):
    plain, *_ = load(augment=False).train[1]
    test, *_ = load().test[0]
    assert (plain == test).all()
    assert plain.dtype == numpy.float32
    assert 0 <= plain[0].min() < 123 < plain[0].max() <= 255


def test_epochs_augment_differently(load):
    data = load(augment=True)
    seen = set()
    for epoch in range(10):
        with using_epoch(1, epoch):
            image, boxes, labels = data.train[1]
        assert len(boxes) == len(labels)
        seen.add(image.tobytes())
    assert len(seen) == 10


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_ssd_s_boxes_are_where_the_objects_are(seed):
    pixels = numpy.zeros((90, 120, 3), numpy.uint8)
    boxes = numpy.array([[10, 20, 50, 60], [60, 80, 85, 110]], numpy.float32)
    for (top, left, bottom, right), level in zip(boxes.astype(int), (255, 180)):
        pixels[top:bottom, left:right] = level
    normalization = Normalization((0, 0, 0), (1, 1, 1), FLOAT32)
    transform = functools.partial(transform_example, 300, normalization, True)
    example = Image.fromarray(pixels), boxes, numpy.array([7, 3], numpy.int32)
    image, moved, labels = transform(example, numpy.random.default_rng(seed))
    assert image.shape == (3, 300, 300) and image.flags.c_contiguous
    assert moved.dtype == numpy.float32 and labels.dtype == numpy.int32
    assert len(moved) == len(labels)  # maybe none, where any patch will do
    grey = image.mean(axis=0)
    for (top, left, bottom, right), label in zip(moved, labels):
        assert 0 <= top < bottom <= 300 and 0 <= left < right <= 300
        inside = grey[int((top + bottom) / 2), int((left + right) / 2)]
        # Black is at most 32 * 1.5 = 48 after the distortion; 180 at least (180 - 32) * 0.5 = 74.
        # The canvas around is about 115. A filter overshoots by some levels.
        assert inside > 70
        # The first object is the brighter one; where both are there, it still is.
        if len(labels) == 2 and label == 7:
            brighter = inside
        elif len(labels) == 2:
            assert inside <= brighter


def test_ssd_s_test_images_are_only_resized():
    pixels = numpy.random.default_rng(0).integers(0, 256, (30, 60, 3), dtype=numpy.uint8)
    normalization = Normalization(VGG_MEAN, (1, 1, 1), FLOAT32)
    transform = functools.partial(transform_example, 30, normalization, False)
    boxes = numpy.array([[0, 0, 30, 60], [3, 10, 6, 20]], numpy.float32)
    image, moved, label, difficult = transform((Image.fromarray(pixels), boxes, 'a', 'b'))
    assert moved.tolist() == [[0, 0, 30, 30], [3, 5, 6, 10]]
    assert (label, difficult) == ('a', 'b')
    resized = Image.fromarray(pixels).resize((30, 30), Image.Resampling.BILINEAR)
    expected = numpy.asarray(resized, float).transpose(2, 0, 1) - numpy.reshape(VGG_MEAN, (3, 1, 1))
    assert (image == expected).all()


def test_a_smaller_setting_has_the_first_of_the_lists(load, fails):
    data = load(train_size=2)
    assert [labels.tolist() for _, _, labels in data.train] == [[], [0]]
    fails('VOC2007/test', 'given 2 examples', 'at most 1', test_size=2)


def test_the_folder_may_be_the_one_around(load, folder):
    assert load(folder=str(folder.parent)).class_names == ('bird', 'cat', 'dog')


@pytest.mark.parametrize(
    'text, parts',
    [
        ('', ['damaged XML']),
        (annotation_xml(object_xml())[:-20], ['damaged XML']),
        ('<html></html>', ['given <html>', '<annotation>']),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', ['damaged XML']),
        (annotation_xml('<object><name>cat</name></object>'), ['object 1: given no name or no']),
        (annotation_xml(object_xml(''), object_xml()), ['object 1: given no name']),
        (
            annotation_xml('<object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object>'),
            ['object 1: given no ymin'],
        ),
        (
            annotation_xml(object_xml(), object_xml(box=(1, 2, 'x', 4))),
            ["object 2, xmax: given 'x"],
        ),
        (annotation_xml(object_xml(box=(1, 2, 'nan', 4))), ["xmax: given 'nan'"]),
        (annotation_xml(object_xml(difficult='yes')), ["difficult: given 'yes', allowed: 0 or 1"]),
        (annotation_xml(object_xml(box=(9, 1, 5, 4))), ['object 1: given ymin 1, xmin 9']),
        (annotation_xml(object_xml(box=(25, 1, 30, 4))), ['object 1', 'pixels of the image']),
    ],
)
def test_a_damaged_annotation_is_named(fails, annotate, text, parts):
    path = annotate(text)
    fails(path, *parts)


def test_missing_files_are_named(fails, folder):
    fails('JPEGImages: given no folder', 'VOCdevkit', train=['VOC2008/trainval'])
    fails(folder / 'VOC2007/ImageSets/Main/dev.txt', 'No such file', train=['VOC2007/dev'])
    fails('given the split test, allowed: such as VOC2007/trainval', test=['test'])
    (folder / 'VOC2007/ImageSets/Main/test.txt').write_text('a\nz\n')
    fails(folder / 'VOC2007/JPEGImages/z.jpg', 'test.txt, line 2 names it')
    (folder / 'VOC2007/ImageSets/Main/test.txt').write_text('a 1\n')
    fails('test.txt, line 1: given 2 words')
    (folder / 'VOC2007/ImageSets/Main/test.txt').write_text('a\n')
    (folder / 'VOC2007/Annotations/a.xml').unlink()
    fails(folder / 'VOC2007/Annotations/a.xml', 'No such file')


def test_a_data_set_without_any_object_is_an_error(fails, folder):
    (folder / 'VOC2007/ImageSets/Main/none.txt').write_text('b\n')
    only = ['VOC2007/none']
    fails('given no object in any annotation', train=only, test=only)


def test_a_damaged_image_is_named_or_skipped(load, folder, cut):
    path = folder / 'VOC2007' / 'JPEGImages' / 'b.jpg'
    cut(path)
    with pytest.raises(DamagedImageError, match=f'{path}: damaged'):
        load().train[0]
    data = load(skip_damaged=True)
    with pytest.warns(UserWarning, match=str(path)):
        image, _, labels = data.train[0]
    # The boxes are those of the image that stands in.
    assert labels.tolist() == [1] and (image == data.train[1][0]).all()


def test_the_real_sample_has_all_its_boxes(load, real):
    splits = [f'VOC2007/{split}' for split in ('train', 'val')]
    data = load(folder=str(real('cells-voc')), train=splits, test=['VOC2007/test'], size=300)
    assert (len(data.train), len(data.test)) == (329, 256)
    assert data.class_names == ('cellbody',)
    for image, boxes, labels, difficult in (data.test[i] for i in range(0, 256, 25)):
        assert len(boxes) == len(labels) == len(difficult)
        grey = image.mean(axis=0)
        for y_min, x_min, y_max, x_max in boxes.astype(int):
            # A cell body is brighter than what is around it.
            assert grey[y_min:y_max, x_min:x_max].mean() > grey.mean()
