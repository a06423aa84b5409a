from experiments.models.box_coding import corners, decode, encode
from experiments.models.default_boxes import GRIDS_300, default_boxes

import numpy


def test_corners_are_half_a_side_from_the_centre():
    assert corners(numpy.array([[10.0, 20.0, 4.0, 6.0]])).tolist() == [[8, 17, 12, 23]]


def test_an_encoded_box_is_its_offset_and_its_growth():
    # A default box around (10, 20), 4 high and 8 wide; an object around (11, 18), 8 high and 8
    # wide. Offset: +1 / 4 and -2 / 8, over 0.1. Growth: ln(8 / 4) and ln(8 / 8), over 0.2.
    default = numpy.array([[10, 20, 4, 8]], numpy.float32)
    boxes = numpy.array([[7, 14, 15, 22]], numpy.float32)
    encoded = encode(boxes, default)
    assert encoded.dtype == numpy.float32
    numpy.testing.assert_allclose(encoded, [[2.5, -2.5, 3.4657359, 0]], rtol=1e-6)
    numpy.testing.assert_allclose(decode(encoded, default), boxes, rtol=1e-6)


def test_decoding_gives_back_what_was_encoded():
    rng = numpy.random.RandomState(0)
    defaults = default_boxes(GRIDS_300)
    lower = rng.uniform(0, 250, (len(defaults), 2))
    boxes = numpy.concatenate([lower, lower + rng.uniform(5, 50, lower.shape)], axis=1)
    boxes = boxes.astype(numpy.float32)
    decoded = decode(encode(boxes, defaults), defaults)
    # Numbers up to 300 pixels, and logarithms that are exponentiated again: a few float32 roundings
    # of 300 * 2^-24 each.
    numpy.testing.assert_allclose(decoded, boxes, rtol=0, atol=20 * 300 * 2**-24)


def test_nothing_encoded_is_the_default_box():
    defaults = default_boxes(GRIDS_300)
    decoded = decode(numpy.zeros_like(defaults), defaults)
    numpy.testing.assert_array_equal(decoded, corners(defaults))
