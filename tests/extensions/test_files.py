"""A file is replaced as a whole or stays as it was; what is written is what is read."""

import os
import random

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


ROWS = [row(iteration, layer, 0, 2.0**-iteration) for iteration in range(9) for layer in 'ab']
LINES = {  # what becomes of the 8th line
    'a stray quote': (lambda line: b'"' + line, 'line 8 is not iteration,layer'),
    'a quote in it': (lambda line: line[:3] + b'"' + line[3:], None),
    'no text': (lambda line: line[:3] + b'\xff' + line[3:], 'line 8 is not iteration,layer'),
    'a cut': (lambda line: line[:9], 'line 8 is not iteration,layer'),
    'a part more': (lambda line: line + b',1', 'line 8 is not iteration,layer'),
    'no number': (lambda line: line.replace(b'1.0', b'one'), 'line 8 is not iteration,layer'),
    'nothing': (lambda line: b'', 'line 8 is not iteration,layer'),
    'a null': (lambda line: b'\0' + line, 'line 8 is not iteration,layer'),
}


def damaged_file(path, damage, number=8):
    files.start(path, 1)
    files.append(path, ROWS)
    assert files.read(path) == ROWS
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = damage(lines[number - 1].rstrip()) + b'\r\n'
    path.write_bytes(b''.join(lines))


@pytest.mark.parametrize('kind', LINES)
def test_a_damaged_line_costs_no_other_and_is_told(tmp_path, recwarn, kind):
    damage, told = LINES[kind]
    path = tmp_path / 'scales.csv'
    damaged_file(path, damage)
    if told is not None:
        with pytest.raises(ValueError, match=told):
            files.read(path)
    files.start(path, 7)
    warned = [str(warning.message) for warning in recwarn]
    assert len(warned) == (told is not None)
    assert all(f'{path}: lines that are no rows are dropped, 1 of 18; {told}' in w for w in warned)
    kept = [row for row in ROWS if row.iteration < 7]
    found = files.read(path)
    assert found[:6] + found[-7:] == kept[:6] + kept[7:] and len(found) == 14 - len(warned)


def test_a_damaged_header_is_told_and_made_again(tmp_path):
    path = tmp_path / 'scales.csv'
    damaged_file(path, lambda line: line[:-1], number=1)
    with pytest.raises(ValueError, match='line 1 is not iteration,layer'):
        files.read(path)
    with pytest.warns(RuntimeWarning, match='dropped, 1 of 19; line 1 is not iteration,layer'):
        files.start(path, 9)
    assert files.read(path) == ROWS


def test_a_last_line_without_an_end_is_that_of_a_broken_off_writing(tmp_path, recwarn):
    path = tmp_path / 'scales.csv'
    files.start(path, 1)
    files.append(path, ROWS)
    content = path.read_bytes()
    for size in range(len(content) - 20, len(content)):
        path.write_bytes(content[:size])
        assert files.read(path) == ROWS[:-1]
    files.start(path, 9)
    assert files.read(path) == ROWS[:-1] and not recwarn


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


def test_a_flipped_bit_of_histograms_is_an_error_of_the_file_or_of_none(tmp_path):
    path = tmp_path / 'file.npz'
    written = files.histograms_of([row(1, '/a', 0, 1.0), row(2, '/a', 0, 2.0)], [range(60)] * 2)
    files.write_histograms(path, written)
    content = path.read_bytes()
    directory = range(8 * content.index(b'PK\x01\x02'), 8 * len(content))
    for bit in random.Random(0).sample(directory, 300) + list(range(0, 8 * len(content), 97)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            numpy.testing.assert_array_equal(files.read_histograms(path), written)
        except OSError as error:
            assert error.filename == str(path) and 'not a file of histograms' in error.strerror
