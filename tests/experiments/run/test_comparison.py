"""Ways of scaling are compared on the weights of a float32 training, and leave no trace in it."""

import math

import chainerlp
from chainerlp import policies
from chainerlp.extensions import files
from experiments.config import loading
from experiments.reports.run_files import ComparisonRow
from experiments.run.comparison import FIXED_SCALES, FORMATS
from experiments.run.launch import Launch, get_device
from experiments.run.train import build_trainer, settings

import numpy
import pytest


def read(folder):
    return files.read(str(folder / 'comparison.csv'), ComparisonRow)


def test_it_is_the_gradient_error_of_each_on_the_weights_of_that_iteration(tiny, tmp_path):
    options = ('scaling={method: fp32}', 'report.comparison=2', 'train.max_iterations=2')
    config = loading.load(tiny, options).single()
    launch = Launch(get_device('@numpy'))
    with settings(config, launch.device):
        trainer = build_trainer(config, str(tmp_path), launch)
        trainer.run()
        rows = {(row.way, row.format, row.scale): row for row in read(tmp_path) if row.scale > 0}
        ours = {(row.way, row.format): row for row in read(tmp_path) if math.isnan(row.scale)}
        model = trainer.updater.get_optimizer('main').target
        data = trainer.updater.get_iterator('main').dataset
        size = config.train.batch_size
        examples = [data[index * len(data) // size] for index in range(size)]
        x, t = (numpy.array(column) for column in zip(*examples))
        for scale, format in ((8.0, 'float8_e4m3'), (2.0**24, 'float16')):
            errors = chainerlp.gradient_error(
                model,
                model,
                *(x, t),
                policy=policies.Fixed(1),
                initial_scale=scale,
                gradient_format=format,
                show=False,
            )
            row = rows['fixed', format, scale]
            assert (row.error, row.worst) == (errors.median, errors.worst)
            assert row.error > 0 and row.iteration == 2
        for name, policy in (('per_sample', policies.PerSample()), ('amax', policies.Amax())):
            options = dict(policy=policy, gradient_format='float8_e4m3', show=False)
            errors = chainerlp.gradient_error(model, model, x, t, **options)
            assert ours[name, 'float8_e4m3'].error == errors.median
    assert set(ours) == {
        (way, format)
        for way in ('adaptive', 'adaptive-product', 'per_sample', 'amax', 'measured')
        for format in FORMATS
    }
    assert set(rows) == {('fixed', f, scale) for f in FORMATS for scale in FIXED_SCALES}


@pytest.mark.parametrize('method, is_compared', [('fp32', True), ('per_sample', False)])
def test_it_changes_nothing_in_a_float32_training_and_is_in_no_other(
    cli, tiny, tmp_path, method, is_compared
):
    out = tmp_path / 'out' / 'tiny' / f'{method}-seed=0'
    way = ('-o', f'scaling={{method: {method}}}', '-o', 'report.gradient_error=1')
    assert cli('train', tiny, *way)[0] == 0
    without = {name: (out / name).read_bytes() for name in ('scales.csv', 'gradient_error.csv')}
    assert cli('train', tiny, *way, '-o', 'report.comparison=2', '--fresh')[0] == 0
    assert {name: (out / name).read_bytes() for name in without} == without
    assert (out / 'comparison.csv').exists() == is_compared


def test_a_run_that_was_interrupted_goes_on_in_its_file(cli, tiny, tmp_path, signalled):
    out = tmp_path / 'out' / 'tiny' / 'fp32-seed=0' / 'comparison.csv'
    options = ('-o', 'scaling={method: fp32}', '-o', 'report.comparison=2')
    assert cli('train', tiny, *options)[0] == 0
    whole = out.read_bytes()
    signalled(3, 15)
    assert cli('train', tiny, *options, '--fresh')[0] == 143
    assert 0 < len(out.read_bytes()) < len(whole)
    assert cli('train', tiny, *options)[0] == 0
    assert out.read_bytes() == whole
