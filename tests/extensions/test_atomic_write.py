"""A file is replaced as a whole or stays as it was."""

import os

from chainerlp.extensions.atomic_write import atomic_write, write_text

import pytest


def test_a_text_is_replaced(tmp_path):
    path = tmp_path / 'a.txt'
    write_text(str(path), 'older, and longer')
    write_text(str(path), 'ä\n')
    assert path.read_bytes() == 'ä\n'.encode()
    assert os.listdir(tmp_path) == ['a.txt']


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_what_is_there_stays_if_it_fails(tmp_path, error):
    path = tmp_path / 'a.txt'
    path.write_text('old')
    with pytest.raises(error):
        with atomic_write(str(path)) as unfinished:
            with open(unfinished, 'w') as file:
                file.write('ne')
            raise error
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['a.txt']


def test_it_is_on_the_disk_before_it_takes_the_place(tmp_path, monkeypatch):
    path = tmp_path / 'a.txt'
    path.write_text('old')
    seen = []
    monkeypatch.setattr(os, 'fsync', lambda descriptor: seen.append(path.read_text()))
    write_text(str(path), 'new')
    assert seen == ['old'] and path.read_text() == 'new'
