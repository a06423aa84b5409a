"""Runs by their way of scaling: what is one line, and the authors' number beside it."""

from experiments.reports import by_way, published, run_folder
from tests.experiments.reports.test_published import nested

import pytest


def finished(name, *accuracies, **config):
    """A run whose evaluations gave these; the last one is its result."""
    return run_folder.RunFolder(
        f'results/cifar/{name}',
        config={'name': 'cifar', **config},
        log=[{'iteration': 1, 'validation/main/accuracy': value} for value in accuracies],
        result={'metric': 'accuracy', 'accuracy': accuracies[-1]},
    )


def test_seeds_are_one_line_with_the_means_of_the_last_and_the_best_evaluations():
    runs = [
        finished('none-seed=0', 0.94, 0.90, seed=0),
        finished('adaptive-seed=0', 0.95, scaling={'method': 'adaptive'}),
        finished('none-seed=1', 0.80, 0.92, seed=1),
    ]
    header, rows = by_way.table(by_way.group(runs))
    assert header == ['scaling', 'runs', 'accuracy, last', 'accuracy, best']
    # The sample standard deviation of two values is their difference over the root of 2.
    assert rows == [
        ['none', '2', '91.00% ± 1.41%', '93.00% ± 1.41%'],
        ['adaptive', '1', '95.00%', '95.00%'],
    ]


def test_an_evaluation_that_is_not_a_number_is_not_the_best_one():
    assert finished('none-seed=0', 0.5, float('nan')).best == 0.5


def test_two_settings_of_one_method_never_share_a_line():
    def run(seed, **knobs):
        scaling = {'method': 'adaptive', 'label': 'mine', 'threshold': 1e-3, **knobs}
        return finished(f'mine-seed={seed}', 0.5, seed=seed, scaling=scaling)

    groups = by_way.group([run(0), run(1, threshold=0.01), run(2), run(3, threshold=0.01)])
    assert list(groups) == ['mine, scaling.threshold=0.001', 'mine, scaling.threshold=0.01']
    assert [len(runs) for runs in groups.values()] == [2, 2]
    faster = finished('none-seed=1', 0.5, optimizer={'lr': 0.2})
    groups = by_way.group([finished('none-seed=0', 0.5, optimizer={'lr': 0.1}), faster])
    assert list(groups) == ['none, optimizer.lr=0.1', 'none, optimizer.lr=0.2']


def test_where_a_run_was_loaded_and_what_it_measured_is_no_other_setting():
    runs = [
        finished('none-seed=0', 0.5, loading={'workers': 2}, report={'interval': 1}),
        finished('none-seed=1', 0.5, loading={'workers': 0}, report={'interval': 2}),
    ]
    assert list(by_way.group(runs)) == ['none']


def test_the_authors_number_stands_beside_their_setting_with_their_runs_and_spread():
    entry = next(entry for entry in published.NUMBERS if entry.runs == (79.24, 78.73))
    theirs, other = (nested({**entry.setting, 'train.iterations': n}) for n in (120000, 119999))
    runs = [finished('a-seed=0', 0.79, **theirs), finished('b-seed=0', 0.79, **other)]
    header, rows = by_way.table(by_way.group(runs))
    assert header[-1] == 'the authors’ best'
    # Mean 78.985; the two lie 0.51 apart, over the root of 2.
    assert [row[-1] for row in rows] == ['78.98 ± 0.36, 2 runs (mAP, %)', '']


@pytest.mark.parametrize('values', [[0.5, float('nan')], [float('nan')]])
def test_a_mean_that_is_not_a_number_is_a_dash(values):
    runs = [finished(f'none-seed={i}', value) for i, value in enumerate(values)]
    assert by_way.table(by_way.group(runs))[1][0][2] == '–'
