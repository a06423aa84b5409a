"""The config of an experiment: its runs, and its schema."""

import json
import pathlib

from experiments.config import label, loading

import pytest

DIGITS_MLP = str(pathlib.Path(__file__).parents[3] / 'configs' / 'digits_mlp.yaml')


def test_the_quickstart_sweeps_every_method_over_three_seeds():
    loaded = loading.load(DIGITS_MLP)
    methods = [item.method for item in loaded.sweep.scaling]
    # From fp32 to ours; the second amax is in a float32 model.
    others = ['amax', 'amax', 'measured', 'per_sample']
    assert methods == ['fp32', 'none', 'fixed', 'dynamic', 'adaptive', *others]
    assert loaded.sweep.scaling[2].scale == 128
    assert loaded.sweep.seeds == (0, 1, 2)
    assert len(loaded.runs()) == 27
    assert {run.run_name for run in loaded.runs()[:9]} == {
        f'{label(item)}-seed=0' for item in loaded.sweep.scaling
    }


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match='frozen'):
        loading.load(DIGITS_MLP).seed = 1


def test_the_config_of_a_run_is_that_of_the_file_but_for_the_sweep():
    loaded = loading.load(DIGITS_MLP)
    last = loaded.runs()[-1]
    assert last.sweep is None
    assert (last.seed, last.scaling.method) == (2, 'per_sample')
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
