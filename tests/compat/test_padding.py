"""Paddings that an integer type cannot hold wrap around."""

import chainer.functions as F  # noqa: N812 -- Chainer's own name for it
import numpy
import pytest
from chainer.dataset import concat_examples

# NumPy 1.24 to 1.26, where nothing is replaced, warn of it.
pytestmark = pytest.mark.filterwarnings('ignore:NumPy will stop allowing')


@pytest.mark.parametrize(
    'dtype, expected',
    [
        ('uint8', 255),
        ('uint16', 2**16 - 1),
        ('uint64', 2**64 - 1),
        ('int8', -1),
        ('int32', -1),
        ('float16', -1),
    ],
)
def test_minus_one_becomes_the_largest_unsigned_number(dtype, expected):
    arrays = [numpy.array([1, 2], dtype), numpy.array([3], dtype)]
    padded = F.pad_sequence(arrays, padding=-1).array
    assert padded.dtype == dtype
    assert padded.tolist() == [[1, 2], [3, expected]]
    assert concat_examples(arrays, padding=-1).tolist() == padded.tolist()


def test_other_paddings_are_what_they_were():
    arrays = [numpy.array([1, 2], 'f'), numpy.array([3], 'f')]
    assert F.pad_sequence(arrays, padding=0.5).array.tolist() == [[1, 2], [3, 0.5]]
    assert F.pad_sequence(arrays, length=3).array.tolist() == [[1, 2, 0], [3, 0, 0]]
    assert concat_examples([(a, a.astype('B')) for a in arrays], padding=(0.5, -1))[1].tolist() == [
        [1, 2],
        [3, 255],
    ]
    with pytest.raises(ValueError):
        concat_examples(arrays)
