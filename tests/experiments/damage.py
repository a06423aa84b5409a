"""Damages to a file: what disks, people and other programs make of one."""

import contextlib
import os
import shutil
import signal


def damaged(path, rng, other):
    """Damages a file somehow, given a folder in which another run has files of the same names."""
    kind = rng.choice(KINDS if path.stat().st_size else KINDS[-6:])
    kind(path, rng, other)
    return kind.__name__


def flip_a_bit(path, rng, other):
    content = bytearray(path.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def cut(path, rng, other):
    os.truncate(path, rng.randrange(path.stat().st_size))


def empty(path, rng, other):
    os.truncate(path, 0)


def insert(path, rng, content):
    there = path.read_bytes()
    at = rng.randrange(len(there) + 1)
    path.write_bytes(there[:at] + content + there[at:])


def insert_a_quote(path, rng, other):
    insert(path, rng, b'"')


def insert_no_text(path, rng, other):
    insert(path, rng, rng.choice([b'\xff', b'\xed\xa0\x80', b'\x00', b'\xc3']))


def insert_bytes(path, rng, other):
    insert(path, rng, rng.randbytes(rng.choice([1, 16, 5000])))


def repeat_a_part(path, rng, other):
    content = path.read_bytes()
    start = rng.randrange(len(content))
    insert(path, rng, content[start : start + rng.randrange(1, 500)])


def swap(path, rng, other):
    """Takes the file of another run."""
    path.unlink()
    if (other / path.name).exists():
        shutil.copy(other / path.name, path)


def remove(path, rng, other):
    path.unlink()


def make_a_folder(path, rng, other):
    path.unlink()
    path.mkdir()


def make_a_pipe(path, rng, other):
    path.unlink()
    os.mkfifo(path)


def make_it_endless(path, rng, other):
    path.unlink()
    path.symlink_to('/dev/zero')


def make_it_huge(path, rng, other):
    os.truncate(path, 2**41)


KINDS = [
    *(flip_a_bit, cut, empty, insert_a_quote, insert_no_text, insert_bytes, repeat_a_part),
    *(swap, remove, make_a_folder, make_a_pipe, make_it_endless, make_it_huge),
]


@contextlib.contextmanager
def within(seconds):
    """Raises TimeoutError if it takes longer: something was waited for, or read without end."""

    def late(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
