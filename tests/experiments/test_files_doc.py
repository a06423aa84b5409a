"""docs/files.md promises the bounds that there are."""

import pathlib

from experiments.config import Config, bounded_yaml, loading
from experiments.data import dataset, digits, images, safe_pickle, voc
from experiments.models import vgg

import pytest

TEXT = (pathlib.Path(__file__).parents[2] / 'docs' / 'files.md').read_text(encoding='utf-8')
SCHEMA = Config.model_json_schema()['$defs']


def most(section, key, bound='maximum'):
    return f'{SCHEMA[section]["properties"][key][bound]:,}'


@pytest.mark.parametrize(
    'what, bound',
    [
        ('the file', f'{bounded_yaml.LARGEST // 2**10} KiB'),
        ('files that one builds on', f'{loading._MOST_BASES}'),
        ('nesting', f'{bounded_yaml.DEEPEST} levels'),
        ('scalars, lists and mappings', f'{bounded_yaml._MOST_NODES:,}'),
        ('an integer', f'{bounded_yaml._WIDEST} bits'),
        ('batch size; channels', most('Train', 'batch_size')),
        ('batch size; channels', most('SegNet', 'channels')),
        ('layers', most('MLP', 'layers')),
        ('seeds of a sweep', most('Sweep', 'seeds', 'maxItems')),
        ('seeds of a sweep', most('Sweep', 'scaling', 'maxItems')),
        ('images', f'2^{images._MOST_PIXELS.bit_length() - 1} pixels'),
        ("MNIST's idx", f'2^{digits._MOST_BYTES.bit_length() - 1}'),
        ("CIFAR's pickles", f'{safe_pickle._MOST_BYTES // 2**20} MiB'),
        ("CIFAR's pickles", f'{safe_pickle._MOST_INSTRUCTIONS:,} instructions'),
        ("VOC's annotations", f'{voc._MOST_BYTES // 2**20} MiB'),
        ('lists of images', f'{dataset._MOST_BYTES // 2**20} MiB'),
        ("VGG-16's weights", f'{vgg._MOST_BYTES // 2**30} GiB'),
    ],
)
def test_a_bound_is_that_of_the_code(what, bound):
    (row,) = [line for line in TEXT.splitlines() if line.startswith(f'| {what}')]
    assert bound in row.rpartition(' | ')[2]
