import dataclasses
import json
import math
import pathlib

from chainerlp import policies
from experiments import config, loading
from experiments.config import label
from experiments.errors import ConfigError

import pytest
import yaml

DIGITS_MLP = str(pathlib.Path(__file__).parents[2] / 'configs' / 'digits_mlp.yaml')


def scaling(**keys):
    return config.Sweep(seeds=[0], scaling=[keys]).scaling[0]


def test_the_quickstart_sweeps_every_method_over_three_seeds():
    loaded = loading.load(DIGITS_MLP)
    methods = [item.method for item in loaded.sweep.scaling]
    assert methods == ['fp32', 'none', 'fixed', 'dynamic', 'adaptive', 'amax', 'measured']
    assert loaded.sweep.scaling[2].scale == 128
    assert loaded.sweep.seeds == (0, 1, 2)
    assert len(loaded.runs()) == 21
    assert {run.run_name for run in loaded.runs()[:7]} == {
        f'{label(item)}-seed=0' for item in loaded.sweep.scaling
    }


@pytest.mark.parametrize(
    'method, policy',
    [
        (config.Adaptive, policies.Adaptive),
        (config.Amax, policies.Amax),
        (config.Measured, policies.Measured),
    ],
)
def test_a_method_has_the_options_and_the_defaults_of_its_policy(method, policy):
    theirs = {field.name: field.default for field in dataclasses.fields(policy)}
    del theirs['format']  # the dtype says it
    ours = {key: field.default for key, field in method.model_fields.items()}
    for key in ('method', 'dtype', 'label', 'initial_scale', 'scale_weights'):
        del ours[key]
    assert ours == theirs


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match='frozen'):
        loading.load(DIGITS_MLP).seed = 1


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


def test_an_override_without_an_equals_sign_is_an_error():
    with pytest.raises(ConfigError, match='key.path=value'):
        loading.load(DIGITS_MLP, ['seed'])


@pytest.mark.parametrize(
    'keys, expected',
    [
        ({'method': 'fp32'}, 'fp32'),
        ({'method': 'fixed', 'scale': 128}, 'fixed-scale=128'),
        ({'method': 'fixed', 'scale': 0.5}, 'fixed-scale=0.5'),
        ({'method': 'adaptive', 'threshold': 1e-3}, 'adaptive'),
        ({'method': 'adaptive', 'interval': 1000}, 'adaptive-interval=1000'),
        ({'method': 'adaptive', 'max_scale': math.inf}, 'adaptive-max_scale=inf'),
        ({'method': 'amax', 'scale_weights': False}, 'amax-scale_weights=false'),
        ({'method': 'none', 'dtype': 'float16'}, 'none-dtype=float16'),
    ],
)
def test_a_label_tells_the_options_that_are_not_the_defaults(keys, expected):
    assert label(scaling(**keys)) == expected


def test_the_config_of_a_run_is_that_of_the_file_but_for_the_sweep():
    loaded = loading.load(DIGITS_MLP)
    last = loaded.runs()[-1]
    assert last.sweep is None
    assert (last.seed, last.scaling.method) == (2, 'measured')
    assert last.single(loaded.scaling, loaded.seed) == loaded.single()


def test_the_schema_prints_as_json_and_describes_its_keys(cli):
    code, out, err = cli('schema')

    def no_constant(name):
        raise AssertionError(f'{name} is no JSON')

    schema = json.loads(out, parse_constant=no_constant)
    assert (code, err) == (0, '')
    assert set(schema['required']) == {'name', 'dataset', 'model', 'optimizer', 'train'}
    assert schema['additionalProperties'] is False
    assert 'underflow' in schema['$defs']['Adaptive']['properties']['threshold']['description']


def test_a_label_of_its_own_names_the_run():
    assert label(scaling(method='adaptive', max_scale=128.0, label='cifar')) == 'cifar'


def test_two_ways_of_scaling_with_one_label_are_refused():
    two = [{'method': 'none', 'label': 'x'}, {'method': 'fp32', 'label': 'x'}]
    with pytest.raises(ValueError, match='items 0 and 1 are both x'):
        config.Sweep(seeds=[0], scaling=two)
