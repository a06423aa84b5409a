"""The curves of a report."""

import math

from chainerlp.extensions import files
from experiments.reports import figures, run_folder

import pytest


def test_the_legend_names_runs_of_every_task():
    runs = [
        run_folder.RunFolder(
            f'results/cifar/{name}', log=[{'iteration': 1, 'main/loss': 2.0, metric: 0.8}]
        )
        for name, metric in (('a', 'validation/main/accuracy'), ('b', 'validation/main/map'))
    ]
    (legend,) = figures.curves(runs).legends
    assert [text.get_text() for text in legend.get_texts()] == ['cifar/a', 'cifar/b']


def test_gradient_errors_are_medians_over_the_parameters_and_only_finite_ones_are_drawn():
    errors = [files.ErrorRow(1, f'/fc/{i}', error) for i, error in enumerate([0.1, 0.3, math.nan])]
    errors += [files.ErrorRow(2, '/fc/0', math.inf), files.ErrorRow(3, '/fc/0', 0.4)]
    run = run_folder.RunFolder('results/cifar/a', errors=errors)
    (line,) = figures.gradient_errors([run]).axes[0].lines
    assert line.get_xydata().tolist() == [[1, pytest.approx(0.2)], [3, 0.4]]
