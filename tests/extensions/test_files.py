"""A file is replaced as a whole or stays as it was; what is written is what is read."""

import os

from chainerlp.extensions import files
from chainerlp.extensions.files import atomic_write, write_text

import numpy
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


@pytest.mark.parametrize('kind', [os.symlink, os.link, None])
@pytest.mark.parametrize('name', ['a.txt', 'a.unfinished.txt'])
def test_nothing_is_written_through_a_link(tmp_path, kind, name):
    (tmp_path / 'other').write_text('precious')
    other = tmp_path / ('other' if kind else 'made')  # a link to what is not there makes it
    (kind or os.symlink)(other, tmp_path / name)
    write_text(str(tmp_path / 'a.txt'), 'new')
    assert (tmp_path / 'other').read_text() == 'precious'
    assert sorted(os.listdir(tmp_path)) == ['a.txt', 'other']
    assert (tmp_path / 'a.txt').read_text() == 'new' and not (tmp_path / 'a.txt').is_symlink()


def test_a_folder_that_is_a_link_is_no_folder_to_write_into(tmp_path):
    files.make_folder(str(tmp_path / 'a' / 'b'))
    files.make_folder(str(tmp_path / 'a' / 'b'))
    (tmp_path / 'link').symlink_to('a')
    with pytest.raises(OSError, match=f'a link, .*{tmp_path}/link'):
        files.make_folder(str(tmp_path / 'link'))


def test_it_is_on_the_disk_before_it_takes_the_place(tmp_path, monkeypatch):
    path = tmp_path / 'a.txt'
    path.write_text('old')
    seen = []
    monkeypatch.setattr(os, 'fsync', lambda descriptor: seen.append(path.read_text()))
    write_text(str(path), 'new')
    assert seen == ['old'] and path.read_text() == 'new'


def row(iteration, layer, call, total_scale):
    return files.Row(iteration, layer, call, 1.0, total_scale, 0.0, 0.0, 0.0, 1.0)


def test_zeros_and_what_lies_outside_of_the_bins_are_apart():
    histograms = files.histograms_of([row(7, '/l', 1, 4.0)], [numpy.arange(60)])
    assert histograms['zero'] == 0 and histograms['below'] == 1
    assert histograms['counts'].tolist() == [list(range(2, 58))]
    assert histograms['above'] == 58 and histograms['nan'] == 59
    assert histograms[['iteration', 'layer', 'call', 'total_scale']].tolist() == [(7, '/l', 1, 4)]


def test_histograms_that_are_written_are_read(tmp_path):
    rows = [row(1, '/a', 0, 1.0), row(1, '/b', 0, 2.0), row(1, '/a', 1, 2.0), row(5, '/c', 0, 8.0)]
    written = files.histograms_of(rows, [range(60)] * 4)
    files.write_histograms(tmp_path / 'file.npz', written)
    read = files.read_histograms(tmp_path / 'file.npz')
    assert read['layer'].tolist() == ['/a', '/b', '/a', '/c']
    numpy.testing.assert_array_equal(read, written)
    assert os.listdir(tmp_path) == ['file.npz']
