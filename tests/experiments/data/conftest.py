from types import SimpleNamespace

from experiments.config.errors import DataError

import numpy
import pytest
from PIL import Image


@pytest.fixture
def real(samples):
    """Returns a folder of the real samples; skips where they are not."""

    def find(name):
        path = samples / name
        if not path.exists():
            pytest.skip(f'no {path}; CHAINERLP_DATA names the folder of the samples')
        return path

    return find


@pytest.fixture
def section():
    """Makes a section of a config, with what all data sets have in common."""

    def make(**fields):
        common = dict(train_size=None, test_size=None, augment=False, skip_damaged=False)
        return SimpleNamespace(**{**common, **fields})

    return make


@pytest.fixture
def fails(load):
    """Asserts that loading fails with one line that has these parts."""

    def check(*parts, **fields):
        with pytest.raises(DataError) as error:
            load(**fields)
        assert '\n' not in str(error.value)
        for part in parts:
            assert str(part) in str(error.value)

    return check


@pytest.fixture
def noise():
    """Writes an image of noise, whose seed says which; returns its pixels."""

    def write(path, width=8, height=8, seed=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = numpy.random.default_rng(seed)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(path)
        return pixels

    return write


@pytest.fixture
def cut():
    """Cuts a file off after a share of its bytes."""

    def truncate(path, share=0.5):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return truncate
