"""Config files are loaded with those they build on and with overrides, and compared."""

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


def test_differences_are_of_nested_keys_that_some_lack():
    assert loading.compare([{'a': {'b': 1, 'c': 2}}, {'a': {'b': 1}, 'd': 3}]) == {
        'a.c': [2, None],
        'd': [None, 3],
    }


@pytest.fixture
def write(tmp_path, tiny):
    """Writes a config that builds, in the end, on tiny.yaml."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


def test_what_a_config_does_not_say_is_its_bases(write, tiny):
    path = write('own.yaml', 'base: tiny.yaml\nname: own\noptimizer: {lr: 0.5}\n')
    expected = loading.load(tiny, ['name=own', 'optimizer.lr=0.5'])
    assert loading.load(path) == expected and expected.base is None


def test_a_base_is_found_from_the_configs_own_folder_and_may_have_one_itself(write, tmp_path):
    write('below/middle.yaml', 'base: ../tiny.yaml\nseed: 1\ntrain: {batch_size: 64}\n')
    path = write('top.yaml', 'base: below/middle.yaml\nseed: 2\n')
    loaded = loading.load(path)
    assert (loaded.name, loaded.seed, loaded.train.batch_size) == ('tiny', 2, 64)


def test_a_list_replaces_the_bases(write):
    path = write('own.yaml', 'base: tiny.yaml\nsweep: {scaling: [{method: none}]}\n')
    sweep = loading.load(path).sweep
    assert [item.method for item in sweep.scaling] == ['none'] and sweep.seeds == (0,)


def test_null_takes_an_optional_value_away(write):
    path = write('own.yaml', 'base: tiny.yaml\nsweep: null\ntrain: {max_iterations: null}\n')
    loaded = loading.load(path)
    assert loaded.sweep is None and loaded.train.max_iterations is None


def test_a_mapping_of_another_kind_replaces_the_bases_as_a_whole(write):
    write('fixed.yaml', 'base: tiny.yaml\nscaling: {method: fixed, scale: 8}\n')
    path = write('own.yaml', 'base: fixed.yaml\nscaling: {method: dynamic}\n')
    assert loading.load(path).scaling.method == 'dynamic'
    path = write('own.yaml', 'base: tiny.yaml\noptimizer: {name: adam}\n')
    assert loading.load(path).optimizer.alpha == 1e-3
    path = write('own.yaml', 'base: fixed.yaml\nscaling: {dtype: float16}\n')
    assert loading.load(path).scaling.scale == 8


def test_a_length_in_one_unit_replaces_one_in_the_other(write):
    path = write('own.yaml', 'base: tiny.yaml\ntrain: {iterations: 5, evaluate: {iterations: 2}}\n')
    train = loading.load(path).train
    assert (train.epochs, train.iterations, train.evaluate.epochs) == (None, 5, None)
    assert loading.load(path, ['train.epochs=3']).train.iterations is None


def test_an_override_goes_over_both(write):
    path = write('own.yaml', 'base: tiny.yaml\nseed: 1\n')
    assert loading.load(path, ['seed=2', 'optimizer.lr=3']).optimizer.lr == 3


def error_of(path, overrides=()):
    with pytest.raises(ConfigError) as raised:
        loading.load(path, overrides)
    assert '\n' not in str(raised.value)
    return str(raised.value)


def test_a_circle_is_told_with_the_way_around(write, tmp_path):
    first = write('a.yaml', 'base: b.yaml\n')
    write('b.yaml', 'base: ./a.yaml\n')
    assert error_of(first) == (
        f'{first} -> {tmp_path}/b.yaml -> {tmp_path}/./a.yaml: base: a config cannot build on'
        ' itself'
    )
    assert 'cannot build on itself' in error_of(write('c.yaml', 'base: c.yaml\n'))


def test_a_config_builds_on_a_few_others_and_not_on_a_hundred(write, tmp_path):
    for index in range(100):
        write(f'{index}.yaml', f'base: {index - 1}.yaml\n' if index else 'base: tiny.yaml\n')
    assert loading.load(f'{tmp_path}/7.yaml').name == 'tiny'
    first = f'{tmp_path}/99.yaml'
    assert error_of(first) == (
        f'{first} -> ... -> {tmp_path}/91.yaml -> {tmp_path}/90.yaml:'
        ' base: a config cannot build on more than 8 others'
    )


@pytest.mark.parametrize('base', ['x' * 10000, 'x/' * 2000, '../' * 2000 + 'x', r'"\e\a"'])
def test_a_base_that_no_file_can_be_is_told_in_short(write, base):
    own = write('own.yaml', f'base: {base}\n')
    assert error_of(own).startswith(f'{own} -> ') and len(error_of(own)) < 300


@pytest.mark.parametrize(
    'text, said',
    [
        ('base: none.yaml\n', '{own} -> {folder}/none.yaml: No such file or directory'),
        ('base: .\n', '{own} -> {folder}/.: Is a directory'),
        ('base: bad.yaml\n', '{own} -> {folder}/bad.yaml: not YAML: line 1, column 9: '),
        ('base: [tiny.yaml]\n', '{own}: base: given [tiny.yaml], allowed: the path of a config'),
        ('base: 3\n', '{own}: base: given 3, allowed: the path of a config file'),
    ],
)
def test_a_base_that_cannot_be_read_is_told_with_the_way_to_it(write, tmp_path, text, said):
    write('bad.yaml', 'name: [a')
    own = write('own.yaml', text)
    assert error_of(own).startswith(said.format(own=own, folder=tmp_path))


def test_a_mistake_is_told_with_the_file_that_it_is_in(write, tmp_path):
    write('middle.yaml', 'base: tiny.yaml\noptimizer: {lr: -1}\n')
    own = write('own.yaml', 'base: middle.yaml\nname: own\n')
    said = 'optimizer.lr: given -1, allowed: a number > 0'
    assert error_of(own) == f'{own} -> {tmp_path}/middle.yaml: {said}'
    own = write('own.yaml', 'base: middle.yaml\noptimizer: {lr: -1}\n')
    assert error_of(own) == f'{own}: {said}'
    assert error_of(own, ['optimizer.lr=-1']) == f'{own}, -o optimizer.lr=-1: {said}'


def test_a_key_that_no_file_has_is_told_of_the_first(write, tmp_path):
    pathlib.Path(tmp_path / 'tiny.yaml').write_text('name: tiny\n')
    own = write('own.yaml', 'base: tiny.yaml\n')
    assert error_of(own).startswith(f'{own}: dataset: missing')


def test_the_base_is_no_matter_of_overrides(write):
    own = write('own.yaml', 'base: tiny.yaml\n')
    assert 'the base is named in the file' in error_of(own, ['base=other.yaml'])
