"""The benchmarks run, and print what they measured."""

import json
import types

import chainerlp  # noqa: F401 -- it lets Chainer be imported
from experiments.__main__ import main
from experiments.benchmarks import bandwidth, command, methods, on_device, report_cost, subjects

import chainer
import numpy
import pytest


def test_every_method_is_timed_beside_static_loss_scaling(tmp_path, capsys):
    # Without plain Chainer, which takes seconds.
    options = ['--turns', '1', '--no-plain', '--policy', 'amax', '--policy', 'adaptive']
    assert main(['benchmark', *options, '--out', str(tmp_path)]) == 0
    table = capsys.readouterr().out
    content = json.loads((tmp_path / 'benchmark-cnn.json').read_text())
    rows = content['rows']
    scaled = [f'{name}, interval {n}' for name in ('amax', 'adaptive') for n in (1, 10, 100)]
    assert [row['method'] for row in rows] == ['fp32', 'fixed', *scaled]
    for row in rows:
        assert row['fastest'] <= row['median'] <= row['slowest']
        assert row['method'] in table and row['peak_memory'] > 0
    assert rows[1]['ratio'] == 1
    assert 'CPU' in content['device'] and content['batch_size'] == 32
    for rate in content['bandwidth']:
        assert rate['statistics'] > 0 and rate['copy'] > 0


def test_plain_chainer_is_compared_unless_it_is_left_out():
    assert methods.PLAIN in methods.compared(['adaptive'])
    assert methods.PLAIN not in methods.compared(['adaptive'], with_plain=False)


@pytest.mark.slow
@pytest.mark.parametrize('name', command.SUBJECTS)
def test_every_subject_is_trained_by_every_method(name):
    device = chainer.get_device('@numpy')
    for dtype, prepare in methods.compared(['adaptive'], with_plain=False).values():
        with chainer.using_config('dtype', dtype):
            model, arguments = subjects.get(name, device).prepare()
        optimizer = prepare(chainer.optimizers.SGD(1e-3), model)
        optimizer.update(model, *arguments)
        assert all(numpy.isfinite(param.array).all() for param in model.params())


def test_the_names_that_the_command_offers_are_there():
    assert command.SUBJECTS == subjects.NAMES and set(command.POLICIES) == set(methods.POLICIES)


def test_memory_is_what_a_step_takes_at_most():
    def step():
        for _ in range(3):
            numpy.ones(1 << 20, numpy.uint8)

    peak = on_device.peak_memory(chainer.get_device('@numpy'), step)
    assert 1 << 20 <= peak < 1.1 * (1 << 20)


def test_waits_of_the_host_are_counted_and_nothing_is_left_behind():
    class Array:
        def get(self, blocking=True):
            if blocking:
                Stream().synchronize()
            return 1

        item = tolist = __bool__ = __float__ = __int__ = get

    class Event:
        def synchronize(self):
            return 'done'

    class Stream(Event):
        pass

    class FakeCuPy:
        ndarray = Array
        cuda = types.SimpleNamespace(Event=Event, Stream=Stream)

    class FakeDevice:
        xp = FakeCuPy
        device = types.SimpleNamespace(synchronize=lambda: None)

    before = dict(vars(Array)), dict(vars(Stream))
    array, event = Array(), Event()
    assert on_device.host_waits(FakeDevice, lambda: (array.get(), event.synchronize())) == 2
    assert on_device.host_waits(FakeDevice, lambda: None) == 0
    assert on_device.host_waits(FakeDevice, lambda: array.get(blocking=False)) == 0
    assert (dict(vars(Array)), dict(vars(Stream))) == before


def test_the_statistics_are_timed_beside_a_copy():
    rates = bandwidth.run(chainer.get_device('@numpy'), turns=1, mebibytes=[1])
    assert len(rates) == 1 and rates[0].size == 1 << 20 and '1 MiB' in bandwidth.render(rates)


def test_the_cost_of_the_report_is_timed_in_turns(monkeypatch, capsys):
    monkeypatch.setattr(report_cost, 'ITERATIONS', 6)
    monkeypatch.setattr(report_cost, 'INTERVAL', 2)
    assert main(['benchmark', '--model', 'report', '--turns', '1']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ['mlp', 'cnn']


def test_a_training_that_fails_while_it_is_timed_is_an_error_and_no_hang(monkeypatch):
    monkeypatch.setattr(report_cost, 'ITERATIONS', 3)

    def fail(trainer):
        raise ZeroDivisionError('in the third iteration')

    build = report_cost._trainer

    def failing(model, folder):
        trainer = build(model, folder)
        trainer.extend(fail, 'fail', trigger=(3, 'iteration'))
        return trainer

    monkeypatch.setattr(report_cost, '_trainer', failing)
    with pytest.raises(ZeroDivisionError):
        report_cost.run(1)


def test_a_model_that_is_not_there_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        main(['benchmark', '--model', 'transformer'])
    assert ended.value.code == 2 and capsys.readouterr().err.count('\n') == 1
