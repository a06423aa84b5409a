"""Whatever stands where a file is to be read is read within bounds, or refused at once."""

import os
import socket

from experiments.config import bounded_file
from experiments.config.errors import ConfigError
from experiments.data.dataset import read_lines
from experiments.data.digits import load_mnist
from experiments.data.images import read_image, read_labels
from experiments.data.voc import read_annotation
from experiments.models import vgg

import pytest


def fifo(path):
    os.mkfifo(path)


def socket_file(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)


def link_to_a_device(path):
    os.symlink('/dev/zero', path)


def link_to_a_fifo(path):
    os.mkfifo(f'{path}.fifo')
    os.symlink(f'{path}.fifo', path)


def mnist(path):
    class Section:
        folder, train_size, test_size = os.path.dirname(path), None, None

    load_mnist(Section, 'float32')


READERS = {
    'a.jpg': read_image,
    'a.png': read_labels,
    'a.xml': read_annotation,
    'a.txt': lambda path: read_lines(path, 'a list'),
    'train-images-idx3-ubyte': mnist,
    'train-images-idx3-ubyte.gz': mnist,
    'a.npz': lambda path: vgg.load_weights(path, vgg.VGG16Trunk(0.1)),
    'a.caffemodel': lambda path: vgg.load_weights(path, vgg.VGG16Trunk(0.1)),
}


@pytest.mark.parametrize('make', [fifo, socket_file, link_to_a_device, link_to_a_fifo])
@pytest.mark.parametrize('name', READERS)
def test_what_is_no_regular_file_is_not_read(tmp_path, monkeypatch, name, make):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    make(name)
    with pytest.raises(ConfigError, match='Not a regular file'):
        READERS[name](os.path.abspath(name))


@pytest.mark.parametrize('make', [fifo, socket_file, link_to_a_device, link_to_a_fifo])
@pytest.mark.parametrize('based', [False, True])
def test_nor_as_a_config_or_its_base(cli, tmp_path, monkeypatch, make, based):
    monkeypatch.chdir(tmp_path)
    make('odd.yaml')
    (tmp_path / 'own.yaml').write_text('base: odd.yaml\n')
    way = 'own.yaml -> odd.yaml' if based else 'odd.yaml'
    assert cli('train', way.split()[0]) == (2, '', f'{way}: Not a regular file\n')


@pytest.mark.parametrize(
    'name, most', [('a.xml', 2**20), ('a.txt', 2**25), ('a.caffemodel', 2**30)]
)
def test_a_file_that_is_too_large_is_not_read(tmp_path, name, most):
    path = tmp_path / name
    path.touch()
    os.truncate(path, most + 1)  # sparse
    with pytest.raises(ConfigError, match=f'{path}: Larger than {most // 2**20} MiB'):
        READERS[name](str(path))


def test_a_file_within_its_bound_is_read_whole(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'x' * 1000)
    assert bounded_file.read(path, 1000) == b'x' * 1000
    with pytest.raises(OSError, match='Larger than'):
        bounded_file.read(path, 999)
