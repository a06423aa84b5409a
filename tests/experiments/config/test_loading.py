"""Config files are loaded with overrides, and compared."""

import math
import pathlib

from experiments.config import loading
from experiments.config.errors import ConfigError

import pytest
import yaml

DIGITS_MLP = str(pathlib.Path(__file__).parents[3] / 'configs' / 'digits_mlp.yaml')


@pytest.mark.parametrize(
    'override, key, value',
    [
        ('train.epochs=2', 'train.epochs', 2),
        ('optimizer.lr=1e-3', 'optimizer.lr', 1e-3),
        ('optimizer.lr=1E-3', 'optimizer.lr', 1e-3),
        ('optimizer.lr=5.e-1', 'optimizer.lr', 0.5),
        ('optimizer.lr=1', 'optimizer.lr', 1.0),
        ('scaling.max_scale=.inf', 'scaling.max_scale', math.inf),
        ('scaling.power_of_two=false', 'scaling.power_of_two', False),
        ('scaling.initial_scale=auto', 'scaling.initial_scale', 'auto'),
        ('scaling={method: fixed, scale: 8}', 'scaling.scale', 8.0),
        ('scaling.method=dynamic', 'scaling.interval', 1000),
        ('sweep.seeds=[3, 4]', 'sweep.seeds', (3, 4)),
        ('sweep.seeds.1=7', 'sweep.seeds', (0, 7, 2)),
        ('sweep.scaling.3.interval=10', 'sweep.scaling.3.interval', 10),
        ('sweep=null', 'sweep', None),
        ('name=other', 'name', 'other'),
        ('report.interval=5', 'report.interval', 5),
    ],
)
def test_an_override_sets_a_key_as_yaml_would(override, key, value):
    found = loading.load(DIGITS_MLP, [override])
    for part in key.split('.'):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    assert found == value and type(found) is type(value)


def test_an_override_makes_the_section_that_it_needs(tmp_path):
    content = yaml.safe_load(pathlib.Path(DIGITS_MLP).read_text())
    del content['report'], content['scaling']
    path = tmp_path / 'short.yaml'
    path.write_text(yaml.safe_dump(content))
    overrides = ['report.interval=3', 'scaling.method=measured', 'scaling.threshold=1e-2']
    loaded = loading.load(str(path), overrides)
    assert loaded.report.interval == 3
    assert loaded.scaling.threshold == 0.01


def test_the_last_of_two_overrides_wins():
    assert loading.load(DIGITS_MLP, ['seed=1', 'seed=2']).seed == 2


def test_an_override_changes_one_of_the_places_that_an_alias_fills(tmp_path):
    path = tmp_path / 'aliases.yaml'
    train = 'train: {batch_size: 1, epochs: 9, evaluate: &x {epochs: 2}, snapshot: *x}'
    content = pathlib.Path(DIGITS_MLP).read_text()
    path.write_text('\n'.join(train if 'train: {' in x else x for x in content.split('\n')))
    loaded = loading.load(str(path), ['train.evaluate.epochs=3']).train
    assert (loaded.evaluate.epochs, loaded.snapshot.epochs) == (3, 2)


def test_an_override_without_an_equals_sign_is_an_error():
    with pytest.raises(ConfigError, match='key.path=value'):
        loading.load(DIGITS_MLP, ['seed'])


def test_differences_are_of_nested_keys_that_some_lack():
    assert loading.compare([{'a': {'b': 1, 'c': 2}}, {'a': {'b': 1}, 'd': 3}]) == {
        'a.c': [2, None],
        'd': [None, 3],
    }
