from experiments.config import Digits
from experiments.data import load as load_data

import numpy
import pytest


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
