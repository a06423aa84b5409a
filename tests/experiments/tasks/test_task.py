"""What is learnt is a matter of the task alone: its chain, its evaluator, its metric."""

import csv
import dataclasses
import json

from experiments import config, tasks

import chainer
import pytest
from chainer import training


class Quarter(training.Extension):
    """Reports a quarter, and no loss."""

    name = 'validation'
    priority = training.PRIORITY_WRITER

    def __call__(self, trainer):
        chainer.report({'validation/main/share': 0.25})


@pytest.fixture
def other_task(monkeypatch):
    task = dataclasses.replace(
        tasks.get('classification'), metric='share', title='share', evaluator=lambda *_: Quarter()
    )
    monkeypatch.setattr(tasks, 'get', lambda name: task)


def test_results_have_the_name_of_the_tasks_metric(cli, tiny, tmp_path, other_task):
    code, out, err = cli('sweep', tiny)
    assert code == 0
    assert out.split()[:4] == ['method', 'runs', 'share', 'loss']
    assert err.splitlines()[0].startswith('[1/2] fp32-seed=0: share 0.250, loss ')
    folder = tmp_path / 'out' / 'tiny'
    with open(folder / 'summary.csv', newline='') as file:
        assert [row['share'] for row in csv.DictReader(file)] == ['0.25', '0.25']
    result = json.loads((folder / 'fp32-seed=0' / 'result.json').read_text())
    assert (result['metric'], result['share']) == ('share', 0.25)


def test_without_a_loss_on_the_test_set_the_trainings_counts(cli, tiny, tmp_path, other_task):
    cli('train', tiny)
    folder = tmp_path / 'out' / 'tiny' / 'adaptive-seed=0'
    log = json.loads((folder / 'log').read_text())
    assert json.loads((folder / 'result.json').read_text())['loss'] == log[-1]['main/loss']


def test_a_model_for_another_task_is_one_line(cli, tiny, monkeypatch):
    monkeypatch.setattr(config.MLP, 'task', 'detection')
    code, _, err = cli('train', tiny)
    assert code == 2 and err == (
        f'{tiny}: model: given {{name: mlp, layers: 3, units: 16}}, allowed: a model for'
        ' classification, as digits is (mlp is for detection)\n'
    )
