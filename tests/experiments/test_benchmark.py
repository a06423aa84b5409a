"""The benchmarks run, and print what they measured."""

import json

from experiments import benchmark, report_benchmark
from experiments.__main__ import main

import pytest


def test_every_method_is_timed_beside_static_loss_scaling(monkeypatch, tmp_path, capsys):
    few = ('fp32', 'fixed', 'adaptive, interval 1', 'measured')  # plain Chainer takes seconds
    methods = {name: benchmark.METHODS[name] for name in few}
    monkeypatch.setattr(benchmark, 'METHODS', methods)
    assert main(['benchmark', '--turns', '1', '--out', str(tmp_path)]) == 0
    table = capsys.readouterr().out
    rows = json.loads((tmp_path / 'benchmark-cnn.json').read_text())['rows']
    assert [row['method'] for row in rows] == list(few)
    for row in rows:
        assert row['fastest'] <= row['median'] <= row['slowest']
        assert row['method'] in table
    assert rows[1]['ratio'] == 1


def test_the_cost_of_the_report_is_timed_in_turns(monkeypatch, capsys):
    monkeypatch.setattr(report_benchmark, 'ITERATIONS', 6)
    monkeypatch.setattr(report_benchmark, 'INTERVAL', 2)
    assert main(['benchmark', '--model', 'report', '--turns', '1']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ['mlp', 'cnn']


def test_a_training_that_fails_while_it_is_timed_is_an_error_and_no_hang(monkeypatch):
    monkeypatch.setattr(report_benchmark, 'ITERATIONS', 3)

    def fail(trainer):
        raise ZeroDivisionError('in the third iteration')

    build = report_benchmark._trainer

    def failing(model, folder):
        trainer = build(model, folder)
        trainer.extend(fail, 'fail', trigger=(3, 'iteration'))
        return trainer

    monkeypatch.setattr(report_benchmark, '_trainer', failing)
    with pytest.raises(ZeroDivisionError):
        report_benchmark.run(1)


def test_a_model_that_is_not_there_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        main(['benchmark', '--model', 'transformer'])
    assert ended.value.code == 2 and capsys.readouterr().err.count('\n') == 1
