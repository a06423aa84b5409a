import itertools
import os
import pickle
import time
import tracemalloc

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


# What comes before and after a value of a dict.
BEGIN, END = b'\x80\x04}K\x00', b's.'
PAIRS = {
    'memo': (b'K\x01q\x00', b'0h%ch%c\x86q%c'),  # doubled with a number for each
    'memoized': (b'K\x01\x94', b'0h%ch%c\x86\x94'),
    'without POP': (b'(K\x01q\x00', b'h%ch%c\x86q%c'),
    'DUP': (b'K\x01', b'2\x86'),
    'put twice': (b'(K\x01q\x00', b'h%ch%c\x86q\x00q%c'),
    'built of nothing': (b'(K\x01q\x00', b'h%ch%c\x86Nbq%c'),
    'with nothing appended': (b'(K\x01q\x00', b'h%ch%c\x86(eq%c'),
    'with no items set': (b'(K\x01q\x00', b'h%ch%c\x86(uq%c'),
    'a frame in between': (b'(K\x01q\x00', b'h%ch%c\x86\x95' + bytes(8) + b'q%c'),
}


ENCODED_AGAIN_AND_AGAIN = b''.join(
    [
        b'(X\xe8\x03\x00\x00' + b'x' * 1000 + b'q\x00c_codecs\nencode\nq\x01',
        b'h\x01h\x00X\x06\x00\x00\x00latin1\x86R' * 10**4 + b'l',
    ]
)


def doubled(first, step):
    """A tuple of two tuples of two tuples ... of numbers, 2^60 in all."""
    steps = [step % (i, i, i + 1)[: step.count(b'%c')] for i in range(60)]
    return first + b''.join(steps) + (b't' if first[:1] == b'(' else b'')


@pytest.mark.parametrize(
    'value, said',
    [
        (b'Nr' + (2**28).to_bytes(4, 'little'), 'it puts a value at 268435456'),
        (b'Np268435456\n', 'it puts a value at 268435456'),
        (b'\x8e' + (2**40).to_bytes(8, 'little'), 'expected 1099511627776 bytes'),
        (b'\x95' + (2**40).to_bytes(8, 'little'), 'pickle data was truncated'),
        (b'c__builtin__\nbytes\nJ\x00\x00\x00\x40\x85R', 'TypeError'),
        (b'(' + b'}' * 10**6 + b'l', 'more than 1000000 instructions'),
        (pickle.dumps(10**5000)[2:-1], 'an integer of more than 64 bits'),
        (b'I' + b'9' * 5000 + b'\n', 'ValueError'),
        (b'cnumpy\ndtype\nX\xe8\x03\x00\x00' + b'f8,' * 333 + b'f\x85R', 'dtype with fields'),
        (ENCODED_AGAIN_AND_AGAIN, 'it holds text encoded as'),
        *((doubled(*PAIRS[kind]), 'it h(as the instruction|olds a tuple twice)') for kind in PAIRS),
        (b'}(' + b''.join(b'K%c\x85N' % (i % 256) for i in range(2000)) + b'u', 'than 1000 tuples'),
        (b'}' + doubled(*PAIRS['without POP']) + b'K\x01s', 'it holds a tuple twice'),
    ],
)
def test_time_and_memory_are_in_proportion_to_the_file(file, value, said):
    file.write_bytes(BEGIN + value + END)
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(DataError, match=f'not plain data .*{said}') as error:
            safe_pickle.read(str(file), 'a batch')
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(str(error.value)) < 300 + len(str(file))
    assert peak < 10 * file.stat().st_size + 2**20  # the content and copies of it
    assert time.process_time() - started < 20


def test_the_same_list_or_text_may_be_there_twice(file):
    part, text = [1, 2], b'x' * 10**5  # which is in no frame
    value = {b'x': (part, part, text), b'y': [part] * 3, b'z': text}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        file.write_bytes(pickle.dumps(value, protocol))
        assert safe_pickle.read(str(file), 'a batch') == value


@pytest.mark.parametrize('name', ['fifo', '/dev/zero', 'large', '.'])
def test_only_a_regular_file_of_a_batch_s_size_is_read(tmp_path, name):
    os.mkfifo(tmp_path / 'fifo')
    (tmp_path / 'large').touch()
    os.truncate(tmp_path / 'large', 2**28 + 1)  # a sparse file
    said = {'large': 'Larger than 256 MiB', '.': 'Is a directory'}.get(name, 'Not a regular file')
    with pytest.raises(DataError, match=f': {said}; it must be a batch'):
        safe_pickle.read(str(tmp_path / name), 'a batch')


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
