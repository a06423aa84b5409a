from experiments.data.augmentation import camvid, ssd
from experiments.data.augmentation.normalization import Normalization

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

FLOAT32 = numpy.dtype('float32')


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_ssd_s_boxes_are_where_the_objects_are(seed):
    pixels = numpy.zeros((90, 120, 3), numpy.uint8)
    boxes = numpy.array([[10, 20, 50, 60], [60, 80, 85, 110]], numpy.float32)
    for (top, left, bottom, right), level in zip(boxes.astype(int), (255, 180)):
        pixels[top:bottom, left:right] = level
    transform = ssd.Training(300, Normalization((0, 0, 0), (1, 1, 1), FLOAT32))
    example = Image.fromarray(pixels), boxes, numpy.array([7, 3], numpy.int32)
    image, moved, labels = transform(example, numpy.random.default_rng(seed))
    assert image.shape == (3, 300, 300) and image.flags.c_contiguous
    assert moved.dtype == numpy.float32 and labels.dtype == numpy.int32
    assert len(moved) == len(labels) > 0
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
    transform = ssd.Plain(30, Normalization(ssd.MEAN, (1, 1, 1), FLOAT32))
    boxes = numpy.array([[0, 0, 30, 60], [3, 10, 6, 20]], numpy.float32)
    image, moved, label, difficult = transform((Image.fromarray(pixels), boxes, 'a', 'b'))
    assert moved.tolist() == [[0, 0, 30, 30], [3, 5, 6, 10]]
    assert (label, difficult) == ('a', 'b')
    resized = Image.fromarray(pixels).resize((30, 30), Image.Resampling.BILINEAR)
    expected = numpy.asarray(resized, float).transpose(2, 0, 1) - numpy.reshape(ssd.MEAN, (3, 1, 1))
    assert (image == expected).all()


@pytest.mark.parametrize('crop', [None, (5, 7)])
def test_labels_follow_the_pixels(crop):
    labels = numpy.random.default_rng(0).integers(-1, 11, (12, 16)).astype(numpy.int32)
    pixels = numpy.repeat((labels + 1).astype(numpy.uint8)[..., None], 3, axis=2)
    transform = camvid.Training(Normalization((0, 0, 0), (1, 1, 1), FLOAT32), crop)
    seen = set()
    for seed in range(50):
        example = Image.fromarray(pixels), labels
        image, moved = transform(example, numpy.random.default_rng(seed))
        assert moved.shape == (crop or (12, 16)) and moved.dtype == numpy.int32
        assert (image == moved + 1).all()
        seen.add(moved.tobytes())
    assert len(seen) == 2 if crop is None else len(seen) > 30


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_normalization_rounds_once(dtype):
    pixels = numpy.random.default_rng(0).integers(0, 256, (3, 5, 4), dtype=numpy.uint8)
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    result = Normalization(mean, std, numpy.dtype(dtype))(pixels)
    exact = (pixels - numpy.reshape(mean, (3, 1, 1))) / numpy.reshape(std, (3, 1, 1))
    assert result.dtype == dtype and result.flags.c_contiguous
    # Half a unit in the last place of float16, at most 2^-10 below 4, and what float32 leaves.
    tolerance = 2**-10 + 2**-20 if dtype == 'float16' else 2**-20
    numpy.testing.assert_allclose(result, exact, rtol=0, atol=tolerance)
    numpy.testing.assert_array_equal(
        result, Normalization(mean, std, dtype)(Image.fromarray(pixels.transpose(1, 2, 0).copy()))
    )
