import io
import shlex
import sys

from experiments.__main__ import main
from experiments.config import loading
from experiments.reports.summary import Result
from experiments.run import progress, sweep
from experiments.run.launch import Launch, get_device


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bars_show_the_sweep_and_the_iterations_of_each_run(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv('COLUMNS', '100')
    monkeypatch.setattr(sys, 'stderr', Terminal())
    runs = loading.load(tiny, ['train.epochs=40', 'train.max_iterations=400']).runs()
    results = list(
        sweep.execute(runs, str(tmp_path), Launch(get_device('@numpy')), progress.Bars(len(runs)))
    )
    shown = sys.stderr.getvalue()
    assert [result.error for result in results] == [None, None]
    assert 'runs: 100%' in shown and '2/2' in shown
    assert 'fp32-seed=0: ' in shown and 'adaptive-seed=0: ' in shown
    assert '/400 [' in shown and 'loss=' in shown and 'it/s' in shown


def test_one_run_has_one_bar(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'stderr', Terminal())
    assert main(['train', tiny, '--out', str(tmp_path)]) == 0
    assert 'adaptive-seed=0: ' in sys.stderr.getvalue()
    assert 'runs:' not in sys.stderr.getvalue()


def test_quiet_shows_no_bars_on_a_terminal(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'stderr', Terminal())
    assert main(['train', tiny, '--out', str(tmp_path), '--quiet']) == 0
    line, following = sys.stderr.getvalue().splitlines()
    assert line.startswith('[1/1] adaptive-seed=0: accuracy ') and ' left' not in line
    assert following == f'next: python -m experiments report {tmp_path}/tiny --html'
    assert main(shlex.split(following)[4:]) == 0


def test_a_line_tells_how_long_the_others_will_take(capsys, monkeypatch):
    clock = iter([100.0, 200.0, 400.0])
    monkeypatch.setattr(progress.time, 'monotonic', lambda: next(clock))
    lines = progress.Lines(4)
    config = loading.load('configs/digits_mlp.yaml').single()
    for is_new in (False, True, True, True):
        lines.finished(Result(config, 90.0, is_new=is_new))
    before, first, second, last = capsys.readouterr().err.splitlines()
    assert ' left' not in before + last
    assert first.endswith('; about 3 min 20 s left')  # two more, each of 100 s
    assert second.endswith('; about 2 min 30 s left')  # one more, of 150 s


def test_an_underflow_that_was_not_measured_is_no_percentage(cli, tiny):
    _, _, err = cli('train', tiny, '-o', 'report.interval=100')
    assert 'underflow –, ' in err
