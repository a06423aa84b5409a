"""Schedules of the learning rate."""

import json

from experiments.config import loading
from experiments.config.errors import ConfigError
from experiments.config.optimizer import Schedule
from experiments.run import schedule as schedules

import numpy
import pytest


def rates(schedule, pace, iterations):
    schedule = Schedule.model_validate(schedule)
    return [schedules.learning_rate_factor(schedule, pace, iteration) for iteration in iterations]


def test_without_a_schedule_the_rate_is_the_optimizers():
    assert rates({}, schedules.Pace(10, 1), range(100)) == [1.0] * 100


def test_the_cifar_schedule_of_he_et_al():
    # 164 epochs of 50,000 in batches of 128, a tenth at 81 and 122: 390.625 iterations an epoch.
    pace = schedules.Pace(50_000, 128)
    schedule = {'step': {'epochs': [81, 122]}}
    times = [0, 31_640, 31_641, 47_656, 47_657, 64_062]
    assert rates(schedule, pace, times) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01], rel=1e-12)


def test_the_warm_up_of_the_110_layers_is_five_epochs_at_a_tenth():
    pace = schedules.Pace(50_000, 128)
    schedule = {'warmup': {'epochs': 5, 'factor': 0.1, 'shape': 'constant'}}
    assert rates(schedule, pace, [0, 1953, 1954]) == [0.1, 0.1, 1.0]  # 1953.125 iterations


def test_the_imagenet_schedule_of_goyal_et_al():
    # From 0.1 to 0.1 * 8192 / 256 in five epochs, in equal steps, then tenths at 30, 60 and 80.
    pace = schedules.Pace(8192 * 100, 8192)
    schedule = {
        'step': {'epochs': [30, 60, 80]},
        'warmup': {'epochs': 5, 'factor': 1 / 32, 'shape': 'linear'},
    }
    found = rates(schedule, pace, [0, 250, 500, 2999, 3000, 6000, 8000])
    middle = (1 / 32 + 1) / 2
    assert found == pytest.approx([1 / 32, middle, 1, 1, 0.1, 0.01, 0.001], rel=1e-12)


def test_the_ssd_schedule_is_in_iterations():
    schedule = {'step': {'iterations': [80_000, 100_000]}}
    found = rates(schedule, schedules.Pace(16_551, 32), [79_999, 80_000, 100_000])
    assert found == pytest.approx([1, 0.1, 0.01], rel=1e-12)


@pytest.mark.parametrize('optimizer', ['{name: momentum_sgd, lr: 0.05}', '{name: adam}'])
def test_the_log_holds_the_rate_that_each_iteration_was_trained_with(
    cli, tiny, tmp_path, optimizer
):
    code, _, _ = cli(
        *('train', tiny, '-o', 'schedule={step: {iterations: [2], factor: 0.5}}'),
        *('-o', 'train.evaluate={iterations: 1}', '-o', f'optimizer={optimizer}'),
    )
    assert code == 0
    log = json.loads((tmp_path / 'out/tiny/adaptive-seed=0/log').read_text())
    found = [entry['lr'] for entry in log]
    if 'adam' in optimizer:  # its effective rate, which corrects for the bias of its moments
        found = [
            rate / numpy.sqrt(1 - 0.999**t) * (1 - 0.9**t) for t, rate in enumerate(found, start=1)
        ]
    full = 1e-3 if 'adam' in optimizer else 0.05
    assert found == pytest.approx([full, full, full / 2, full / 2], rel=1e-6)


@pytest.mark.parametrize(
    'override, said',
    [
        ('schedule={step: {factor: 0.1}}', 'schedule.step: given {factor: 0.1}, allowed: either'),
        (
            'schedule={step: {epochs: [1], iterations: [2]}}',
            'schedule.step: given {epochs: [1], iterations: [2]}, allowed: either epochs or',
        ),
        (
            'schedule={step: {epochs: [2, 1]}}',
            'schedule.step.epochs: given [2, 1], allowed: each later than the one before',
        ),
        (
            'schedule={warmup: {epochs: 5, factor: 0.1, shape: cosine}}',
            "schedule.warmup.shape: given 'cosine', allowed: one of constant, linear",
        ),
        ('train.epochs=null', 'train: given {batch_size: 128, epochs: null, max_iterations: 4}'),
        ('train.evaluate={}', 'train.evaluate: given {}, allowed: either epochs or iterations'),
        ('train.snapshot=1', 'train.snapshot: given 1, allowed: a mapping with the keys epochs'),
        ('optimizer.weight_decay=-1', 'optimizer.weight_decay: given -1, allowed: a number >= 0'),
    ],
)
def test_what_makes_no_sense_is_one_line(tiny, override, said):
    with pytest.raises(ConfigError) as raised:
        loading.load(tiny, [override])
    assert said in str(raised.value)
