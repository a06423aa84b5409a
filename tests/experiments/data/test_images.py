import pickle
import subprocess
import warnings

from experiments.config.errors import DamagedImageError, DataError
from experiments.data.images import (
    ReplaceDamaged,
    collect_warnings,
    labelled_images,
    read_image,
    read_labels,
)

import numpy
import pytest
from PIL import Image


@pytest.fixture
def paths(tmp_path, noise):
    found = [tmp_path / f'{i}.png' for i in range(5)]
    for i, path in enumerate(found):
        noise(path, seed=i)
    return found


@pytest.fixture
def examples(paths):
    return ReplaceDamaged(labelled_images([str(path) for path in paths], list(range(5))))


def labels(examples):
    with collect_warnings() as messages:
        return [label for _, label in examples], messages


def test_whole_images_stay_where_they_are(examples):
    assert labels(examples) == ([0, 1, 2, 3, 4], [])


def test_the_next_whole_image_replaces_a_damaged_one_and_after_the_last_the_first(
    examples, paths, cut
):
    for i in (1, 2, 4):
        cut(paths[i])
    found, messages = labels(examples)
    assert found == [0, 3, 3, 3, 0]
    # The second one is met twice.
    assert len(messages) == 4 and str(paths[1]) in messages[0] and str(paths[2]) in messages[1]


def test_a_replacement_is_told_in_a_warning(examples, paths, cut):
    cut(paths[1])
    with pytest.warns(UserWarning, match=f'{paths[1]}: damaged image .*the next image stands in'):
        assert examples[1][1] == 2


def test_there_is_no_replacement_where_all_images_are_damaged(examples, paths, cut):
    for path in paths:
        cut(path)
    with collect_warnings(), pytest.raises(DataError, match='and so are all 5 images'):
        examples[3]


def test_a_missing_file_is_an_error_all_the_same(examples, paths):
    paths[2].unlink()
    with pytest.raises(DataError, match=f'{paths[2]}: No such file') as error:
        examples[2]
    assert not isinstance(error.value, DamagedImageError)


@pytest.mark.parametrize('share', [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize('kind', ['png', 'jpg'])
def test_a_truncated_image_is_noticed(tmp_path, noise, cut, kind, share):
    path = tmp_path / f'a.{kind}'
    noise(path, 40, 40)
    cut(path, share)
    with pytest.raises(DamagedImageError, match=str(path)):
        labelled_images([str(path)])[0]


@pytest.mark.parametrize('kind', ['EPS', 'BMP', 'GIF', 'TIFF', 'PPM', 'WEBP', 'TGA', 'PDF'])
@pytest.mark.parametrize('name', ['a.jpg', 'a.PNG'])
def test_only_jpeg_and_png_are_decoded_whatever_the_name_says(tmp_path, monkeypatch, kind, name):
    path = tmp_path / name
    Image.new('RGB', (40, 40)).save(path, kind)
    monkeypatch.setattr(subprocess, 'Popen', None)  # Ghostscript's, for an EPS
    with pytest.raises(DamagedImageError, match=f'{path}: .*cannot identify.* a JPEG or PNG'):
        read_image(str(path))
    Image.new('RGB', (40, 40)).save(path, 'PNG')
    assert read_image(str(path)).size == (40, 40)


@pytest.mark.parametrize('read', [read_image, read_labels])
@pytest.mark.parametrize('height', [2**13 + 1, 12000])  # of more than that Pillow itself would warn
def test_an_image_of_more_pixels_than_allowed_is_not_decoded(tmp_path, monkeypatch, read, height):
    path = tmp_path / 'a.png'
    Image.new('1', (2**13, height)).save(path)  # some kB
    monkeypatch.setattr(Image.Image, 'load', None)
    with warnings.catch_warnings(record=True) as caught:
        with pytest.raises(DamagedImageError, match='pixels.* at most 67108864 pixels'):
            read(str(path))
    assert not caught


def test_an_image_of_random_bytes_is_an_error_of_one_line(tmp_path, noise):
    path = tmp_path / 'a.png'
    noise(path, 10, 10)
    whole = path.read_bytes()
    rng = numpy.random.default_rng(0)
    failed = 0
    for _ in range(300):
        changed = bytearray(whole)
        for position in rng.integers(0, len(whole), 3):
            changed[position] = rng.integers(256)
        path.write_bytes(changed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # Pillow's own, of a size that is a bomb
                labelled_images([str(path)])[0]
        except DamagedImageError as error:
            failed += 1
            assert str(error).startswith(f'{path}: damaged image') and '\n' not in str(error)
    # PNG has checksums.
    assert failed > 250


def test_errors_cross_from_one_process_to_another():
    error = pickle.loads(pickle.dumps(DamagedImageError('a.png: damaged')))
    assert isinstance(error, DamagedImageError) and str(error) == 'a.png: damaged'
