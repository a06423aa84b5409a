"""What ScaleReport costs is timed."""

from experiments.__main__ import main
from experiments.benchmarks import scale_report_cost

import pytest


def test_the_cost_of_the_report_is_timed_in_turns(monkeypatch, capsys):
    monkeypatch.setattr(scale_report_cost, 'ITERATIONS', 6)
    monkeypatch.setattr(scale_report_cost, 'INTERVAL', 2)
    assert main(['benchmark', '--model', 'report', '--turns', '1']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ['mlp', 'cnn']


def test_a_training_that_fails_while_it_is_timed_is_an_error_and_no_hang(monkeypatch):
    monkeypatch.setattr(scale_report_cost, 'ITERATIONS', 3)

    def fail(trainer):
        raise ZeroDivisionError('in the third iteration')

    build = scale_report_cost._trainer

    def failing(model, folder):
        trainer = build(model, folder)
        trainer.extend(fail, 'fail', trigger=(3, 'iteration'))
        return trainer

    monkeypatch.setattr(scale_report_cost, '_trainer', failing)
    with pytest.raises(ZeroDivisionError):
        scale_report_cost.run(1, progress=print)
