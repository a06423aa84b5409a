import itertools
import os
import pickle

from experiments.config.errors import DataError
from experiments.data import safe_pickle

import numpy
import pytest


class Evil:
    """A program in a pickle."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def file(tmp_path):
    return tmp_path / 'data_batch_1'


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('order', 'CF')
def test_plain_data_comes_back_of_every_protocol(file, protocol, order):
    array = numpy.arange(12, dtype='>i2').reshape(3, 4, order=order)
    value = {1: array, 2: numpy.float32(0.5), 3: [1, 2.5, None], 4: (b'a\xff', b'', 'text')}
    file.write_bytes(pickle.dumps(value, protocol))
    read = safe_pickle.read(str(file), 'a batch')
    numpy.testing.assert_array_equal(read.pop(1), value.pop(1))
    assert read == value and isinstance(read[2], numpy.float32)


def test_an_array_of_objects_is_no_plain_data(file):
    file.write_bytes(pickle.dumps(numpy.array([{}, None])))
    with pytest.raises(DataError, match='it holds an array of object'):
        safe_pickle.read(str(file), 'a batch')


def test_a_program_in_a_pickle_does_not_run(file, tmp_path):
    trap = tmp_path / 'trap'
    file.write_bytes(pickle.dumps({b'data': Evil(str(trap))}))
    with pytest.raises(DataError, match=f'{file}.*asks for (posix|nt).mkdir.* must be a batch'):
        safe_pickle.read(str(file), 'a batch')
    assert not trap.exists()


@pytest.mark.parametrize('share', [0, 0.3, 0.7, 0.99])
def test_a_truncated_pickle_is_named(file, cut, share):
    file.write_bytes(pickle.dumps({b'data': numpy.zeros((10, 10))}, 2))
    cut(file, share)
    with pytest.raises(DataError, match=f'{file}: damaged.*it must be a batch'):
        safe_pickle.read(str(file), 'a batch')


def test_any_changed_byte_gives_a_value_or_a_data_error(file):
    whole = pickle.dumps({b'data': numpy.zeros((2, 3), numpy.uint8), b'labels': [1, 2]}, 2)
    errors = 0
    for position, flipped in itertools.product(range(len(whole)), (0x01, 0x55, 0xFF)):
        changed = bytearray(whole)
        changed[position] ^= flipped
        file.write_bytes(changed)
        try:
            safe_pickle.read(str(file), 'a batch')
        except DataError:
            errors += 1
    assert errors > len(whole)
