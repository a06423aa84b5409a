"""Boxes follow pixels: a blob is painted where its box is, and found where the box has gone."""

from experiments.data.transforms import (
    Normalization,
    box_iou,
    center_crop,
    constrained_crop,
    distort,
    draw_patch,
    expand,
    flip,
    flip_boxes,
    pad_and_crop,
    random_sized_crop,
    resize,
)

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

FILL = (123, 117, 104)
BLOB = 255
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def painted(draw, smallest=8, largest=60):
    """An image that is black but for one white rectangle, and that one's box."""
    height, width = draw(st.integers(smallest, largest)), draw(st.integers(smallest, largest))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    bottom, right = draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width))
    pixels = numpy.zeros((height, width, 3), numpy.uint8)
    pixels[top:bottom, left:right] = BLOB
    return Image.fromarray(pixels), numpy.array([[top, left, bottom, right]], numpy.float32)


def blob(image):
    """Returns the box around the white pixels."""
    rows, columns = numpy.nonzero((numpy.asarray(image) == BLOB).all(axis=2))
    return [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]


@given(painted())
def test_the_box_is_flipped_with_the_image(example):
    image, boxes = example
    pixels = numpy.asarray(image).transpose(2, 0, 1)
    flipped = flip(pixels)
    assert blob(flipped.transpose(1, 2, 0)) == flip_boxes(boxes, image.width)[0].tolist()
    assert (flip(flipped) == pixels).all()
    assert (flip_boxes(flip_boxes(boxes, image.width), image.width) == boxes).all()


def test_no_boxes_are_flipped_to_no_boxes():
    assert flip_boxes(numpy.zeros((0, 4), numpy.float32), 10).shape == (0, 4)


@given(painted(), SEEDS)
def test_the_box_is_moved_with_the_image_on_its_canvas(example, seed):
    image, boxes = example
    wide, moved = expand(image, boxes, FILL, numpy.random.default_rng(seed))
    assert moved.dtype == numpy.float32
    assert blob(wide) == moved[0].tolist()
    assert image.width <= wide.width <= 4 * image.width
    assert image.height <= wide.height <= 4 * image.height
    outside = (numpy.asarray(wide) == FILL).all(axis=2).sum()
    assert outside == wide.width * wide.height - image.width * image.height


def test_half_of_the_images_are_expanded():
    image, boxes = Image.new('RGB', (10, 10)), numpy.zeros((0, 4), numpy.float32)
    rng = numpy.random.default_rng(0)
    ratios = [expand(image, boxes, FILL, rng)[0].width / 10 for _ in range(1000)]
    # 500 expected, with a standard deviation of 16; ratios under 1.1 do not show in 10 pixels.
    assert 430 < sum(ratio > 1 for ratio in ratios) < 560
    assert max(ratios) > 3.5


@given(painted(), SEEDS)
@settings(max_examples=200)
def test_the_box_is_cropped_with_the_image(example, seed):
    image, boxes = example
    cropped, clipped, kept = constrained_crop(image, boxes, numpy.random.default_rng(seed))
    assert clipped.dtype == numpy.float32 and len(clipped) == len(kept)
    if len(kept):  # a patch need not have it, if any will do
        assert blob(cropped) == clipped[0].tolist()


@given(painted(smallest=20), SEEDS)
def test_a_patch_has_the_sides_and_proportions_of_the_paper(example, seed):
    image, boxes = example
    cropped, _, _ = constrained_crop(image, boxes, numpy.random.default_rng(seed))
    # Sides are cut to whole pixels.
    assert (cropped.width + 1) * (cropped.height + 1) >= 0.3**2 * image.width * image.height
    aspect = (cropped.width / image.width) / (cropped.height / image.height)
    assert 0.5 * 5 / 6 < aspect < 2 * 6 / 5


def test_a_box_whose_centre_is_outside_of_the_patch_is_left_out():
    image = Image.new('RGB', (100, 100))
    boxes = numpy.array([[0, 0, 60, 60], [70, 70, 100, 100]], numpy.float32)
    seen = set()
    for seed in range(300):
        cropped, clipped, kept = constrained_crop(image, boxes, numpy.random.default_rng(seed))
        seen.add(tuple(kept.tolist()))
        assert len(clipped) == len(kept)
        assert (clipped[:, :2] >= 0).all() and (clipped[:, :2] < clipped[:, 2:]).all()
        assert (clipped[:, 2:] <= [cropped.height, cropped.width]).all()
    assert seen == {(), (0,), (1,), (0, 1)}


def shares_of_whole(boxes, draws):
    image = Image.new('RGB', (100, 100))
    rng = numpy.random.default_rng(0)
    boxes = numpy.array(boxes, numpy.float32)
    return sum(constrained_crop(image, boxes, rng)[0].size == (100, 100) for _ in range(draws))


def test_what_cannot_be_is_left_out_of_the_draw():
    # A patch of 30x30 at least has an IoU of 16/900 = 0.018 with a box of 4x4, below 0.1. So the
    # whole image and any patch are left: 350, with a standard deviation of 13.
    assert 300 < shares_of_whole([[48, 48, 52, 52]], 700) < 400


def test_every_object_overlaps_with_the_patch():
    # As the test before: one large object is no help to the small one.
    assert 300 < shares_of_whole([[0, 0, 99, 99], [48, 48, 52, 52]], 700) < 400
    # Of an object as large as the image, nearly all seven options have a patch: 100, and 9.
    assert 60 < shares_of_whole([[0, 0, 100, 100]], 700) < 160


def test_an_image_without_boxes_stays_whole():
    image, boxes = Image.new('RGB', (100, 50)), numpy.zeros((0, 4), numpy.float32)
    for seed in range(20):
        cropped, clipped, kept = constrained_crop(image, boxes, numpy.random.default_rng(seed))
        assert cropped.size == (100, 50) and clipped.shape == (0, 4) and not len(kept)


@given(painted(smallest=2, largest=12), st.integers(1, 4), st.booleans(), SEEDS)
def test_the_box_is_resized_with_the_image(example, factor, random, seed):
    image, boxes = example
    size = 24 * factor
    rng = numpy.random.default_rng(seed) if random else None
    resized, moved = resize(image, boxes, size, rng)
    assert resized.size == (size, size) and moved.dtype == numpy.float32
    top, left, bottom, right = moved[0]
    centre = numpy.asarray(resized)[int((top + bottom) / 2), int((left + right) / 2)]
    # An image grows twofold at least, so the pixel in the middle of the box is at most a quarter of
    # an old one off it: there bilinear keeps 0.75 of either axis, and the others keep more.
    assert centre.min() >= 0.75**2 * BLOB - 1
    scale = numpy.array([size / image.height, size / image.width] * 2)
    numpy.testing.assert_allclose(moved[0] / scale, boxes[0], rtol=2**-22)


def test_resizing_uses_every_filter():
    pixels = numpy.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=numpy.uint8)
    image, boxes = Image.fromarray(pixels), numpy.zeros((0, 4), numpy.float32)
    rng = numpy.random.default_rng(0)
    results = {resize(image, boxes, 9, rng)[0].tobytes() for _ in range(60)}
    assert len(results) == 5


@given(st.integers(1, 500), st.integers(1, 500), SEEDS)
@settings(max_examples=300)
def test_a_sized_crop_is_a_patch_of_the_image(width, height, seed):
    left, top, right, bottom = draw_patch(width, height, numpy.random.default_rng(seed))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    w, h = right - left, bottom - top
    # To whole pixels, half of one to either side.
    if max(width / height, height / width) < 3:
        assert (w + 0.5) * (h + 0.5) >= 0.08 * width * height
    if min(w, h) > 1:
        assert (w - 1) / (h + 1) <= 4 / 3 and (w + 1) / (h - 1) >= 3 / 4


def test_a_very_long_image_is_cropped_in_the_middle():
    # The smallest patch of 8 % has a side of at least sqrt(0.08 * 3000 * 3/4) = 13.4 pixels.
    assert draw_patch(1000, 3, numpy.random.default_rng(0)) == (498, 0, 502, 3)
    assert draw_patch(3, 1000, numpy.random.default_rng(0)) == (0, 498, 3, 502)


def test_a_sized_crop_shows_what_is_in_the_patch():
    ramp = numpy.arange(200, dtype=numpy.uint8)
    image = Image.fromarray(numpy.broadcast_to(ramp[None, :, None], (100, 200, 3)).copy())
    for seed in range(20):
        left, _, right, _ = draw_patch(200, 100, numpy.random.default_rng(seed))
        crop = numpy.asarray(random_sized_crop(image, 64, numpy.random.default_rng(seed)))
        # The ends of the ramp, but for the pixels at the edge that resizing averages over.
        blur = (right - left) / 64
        assert abs(int(crop[0, 0, 0]) - left) <= blur + 1
        assert abs(int(crop[-1, -1, 0]) - (right - 1)) <= blur + 1


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 50))
def test_a_centre_crop_is_of_the_middle(width, height, size):
    assert center_crop(Image.new('RGB', (width, height)), size + 5, size).size == (size, size)


def test_a_centre_crop_leaves_the_same_at_both_ends():
    ramp = numpy.arange(200, dtype=numpy.uint8)
    image = Image.fromarray(numpy.broadcast_to(ramp[None, :, None], (100, 200, 3)).copy())
    crop = numpy.asarray(center_crop(image, 100, 60))
    assert crop[0, :, 0].tolist() == list(range(70, 130))


@pytest.mark.parametrize('padding', [0, 1, 4])
def test_a_shift_moves_the_pixels_and_brings_in_zeros(padding):
    image = numpy.arange(1, 3 * 9 * 7 + 1, dtype=numpy.float16).reshape(3, 9, 7)
    shifts = set()
    for seed in range(400):
        shifted = pad_and_crop(image, padding, numpy.random.default_rng(seed))
        assert shifted.shape == image.shape and shifted.dtype == image.dtype
        found = [
            (y, x)
            for y in range(-padding, padding + 1)
            for x in range(-padding, padding + 1)
            if (shifted == moved(image, y, x)).all()
        ]
        assert len(found) == 1
        shifts.update(found)
    # 400 draws of 81 shifts miss one with a probability of 81 * (80/81)**400 = 0.6 at most.
    assert len(shifts) > 0.9 * (2 * padding + 1) ** 2


def moved(image, y, x):
    result = numpy.zeros_like(image)
    _, height, width = image.shape
    to = numpy.s_[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
    of = numpy.s_[max(0, -y) : height + min(0, -y), max(0, -x) : width + min(0, -x)]
    result[(slice(None), *to)] = image[(slice(None), *of)]
    return result


def test_the_overlaps_of_a_case_worked_out_by_hand():
    boxes = numpy.array([[0, 0, 10, 10], [0, 0, 2, 5]], numpy.float32)
    others = numpy.array(
        [
            [0, 0, 10, 10],  # 100 of 100; 10 of 100
            [5, 5, 15, 15],  # 5 * 5 of 100 + 100 - 25; nothing, it begins at row 5
            [10, 0, 20, 10],  # an edge in common is nothing in common
            [1, 1, 3, 3],  # 4 of 100; 1 * 2 of 10 + 4 - 2
        ],
        numpy.float32,
    )
    expected = [[1, 25 / 175, 0, 0.04], [0.1, 0, 0, 2 / 12]]
    iou = box_iou(boxes, others)
    assert iou.dtype == numpy.float32
    # The last division is rounded: 2^-24 relative.
    numpy.testing.assert_allclose(iou, expected, rtol=2**-23)


def test_boxes_without_area_overlap_with_nothing():
    empty = numpy.array([[3.0, 3, 3, 8], [0, 0, 0, 0]])
    assert not box_iou(empty, empty).any()
    assert not box_iou(empty, numpy.array([[0.0, 0, 10, 10]])).any()


def test_of_no_boxes_there_are_no_overlaps():
    assert box_iou(numpy.empty((0, 4)), numpy.ones((3, 4))).shape == (0, 3)
    assert box_iou(numpy.ones((3, 4)), numpy.empty((0, 4))).shape == (3, 0)


def test_the_boxes_are_left_as_they_are():
    boxes = numpy.random.RandomState(0).rand(5, 4)
    before = boxes.copy()
    box_iou(boxes, boxes)
    numpy.testing.assert_array_equal(boxes, before)


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


def test_the_hue_turns_by_36_degrees_at_most():
    red = Image.new('RGB', (2, 2), (120, 60, 60))  # so that nothing is cut off at 255
    hues = set()
    for seed in range(300):
        result = Image.fromarray(distorted(red, seed)).convert('HSV')
        hue, saturation, value = result.getpixel((0, 0))
        if saturation * value > 40 * 255:  # with less, a level is more than a degree
            hues.add((hue + 128) % 256 - 128)
    # 36 degrees are 25.6 of 256 steps; bytes in between round by two more.
    assert -28 <= min(hues) < -20 and 20 < max(hues) <= 28


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
