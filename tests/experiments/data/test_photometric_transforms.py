from experiments.data.photometric_transforms import Normalization, distort

import numpy
import pytest
from PIL import Image


@pytest.fixture
def image():
    pixels = numpy.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=numpy.uint8)
    return Image.fromarray(pixels)


def distorted(image, seed, **options):
    return numpy.asarray(distort(image, numpy.random.default_rng(seed), **options))


def test_each_distortion_happens_and_none_does_too(image):
    results = [distorted(image, seed) for seed in range(400)]
    unchanged = sum((result == numpy.asarray(image)).all() for result in results)
    # Four tosses: one of 16 images stays as it was, 25 expected of 400 with a deviation of 5.
    assert 8 < unchanged < 50
    assert len({result.tobytes() for result in results}) > 300
    assert all(result.shape == (16, 16, 3) and result.dtype == numpy.uint8 for result in results)


def test_grey_stays_grey_and_black_only_gets_brighter():
    grey = Image.fromarray(numpy.full((4, 4, 3), 128, numpy.uint8))
    levels = set()
    for seed in range(300):
        result = distorted(grey, seed)
        assert (result == result[0, 0, 0]).all()
        levels.add(int(result[0, 0, 0]))
    # Brightness by 32 at most, contrast by 0.5 to 1.5.
    assert min(levels) >= (128 - 32) // 2 and max(levels) <= (128 + 32) * 1.5
    assert min(levels) < 70 and max(levels) > 200
    black = Image.new('RGB', (4, 4))
    assert max(distorted(black, seed).max() for seed in range(300)) in range(25, 49)


def test_the_hue_turns_by_18_degrees_at_most():
    red = Image.new('RGB', (2, 2), (200, 100, 100))
    hues = set()
    for seed in range(300):
        result = Image.fromarray(distorted(red, seed)).convert('HSV')
        hue, saturation, _ = result.getpixel((0, 0))
        if saturation > 40:  # with less, a level of a channel is more than a degree
            hues.add((hue + 128) % 256 - 128)
    # 18 degrees are 12.8 of 256 steps; bytes in between round by two more.
    assert -16 <= min(hues) < -9 and 9 < max(hues) <= 16


def test_channels_change_places_if_asked_for():
    blue = Image.new('RGB', (2, 2), (0, 0, 255))
    brightest = {int(distorted(blue, seed, swap_rate=1.0)[0, 0].argmax()) for seed in range(60)}
    assert brightest == {0, 1, 2}
    assert {int(distorted(blue, seed)[0, 0].argmax()) for seed in range(60)} == {2}


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
