import io
import sys

from experiments.__main__ import main
from experiments.config import loading
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
    assert sys.stderr.getvalue().startswith('[1/1] adaptive-seed=0: accuracy ')
    assert sys.stderr.getvalue().count('\n') == 1


def test_an_underflow_that_was_not_measured_is_no_percentage(cli, tiny):
    _, _, err = cli('train', tiny, '-o', 'report.interval=100')
    assert 'underflow –, ' in err
