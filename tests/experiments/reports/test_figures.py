"""The figures of a report."""

from chainerlp.extensions import files
from experiments.reports import figures, run_folder

import numpy
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


def test_layers_are_drawn_at_a_few_iterations_from_the_first_to_the_last():
    rows = [
        files.Row(iteration, f'/fc{layer}', 0, 2.0, 4.0, 0.1 * layer, 0.2, 0.0, 1.0)
        for iteration in range(1, 101)
        for layer in range(3)
    ]
    figure = figures.by_layer(rows, threshold=1e-3)
    left, right = figure.axes
    labels = [line.get_label() for line in left.lines]
    assert labels[0] == 'iteration 1' and labels[-2:] == ['iteration 100', 'T = 0.001']
    assert len(labels) == 6
    numpy.testing.assert_allclose(left.lines[0].get_ydata(), [0, 0.1, 0.2])
    assert list(right.lines[0].get_ydata()) == [4, 4, 4]
    # A count would call the second layer the first: that one passes no gradient down.
    assert [tick.get_text() for tick in left.get_xticklabels()] == ['fc0', 'fc1', 'fc2']
    with pytest.raises(ValueError, match='nothing to draw'):
        figures.by_layer([])
