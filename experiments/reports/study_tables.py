"""What the page of a study says of its files: tables, and single numbers by their names."""

import collections
import math
import statistics

from experiments.reports import windows
from experiments.reports.paired_test import holm, paired_t_test
from experiments.reports.tables import markdown_table, percent, two_digits

TABLES = {
    'table windows': 'Gradient errors on the same weights',
    'table trained': 'Gradient errors of trainings with each way of scaling',
    'table threshold': 'Where T is kept: underflow of the worst layer, late',
    'table predictions': 'Predicted over measured underflow',
    'table wanted': 'The scales that layers want, and the largest that all of them allow',
    'table accuracy': 'Accuracies, in pairs with those of float32',
}
_UNSCALED = 'none'
_EXACT = 'fp32', windows.EXACT
_CLOSE = 1.2  # times the error of the best fixed scale
_CHANCE = 0.05  # a p-value below it is called a difference
_ORDERS = (  # of tasks, formats and ways, in tables and pictures; others come last
    ('digits', 'sigmoid', 'text', 'resnet20', 'ssd300', 'cnn', 'cnn_bn'),
    (windows.EXACT, 'float16', 'float8_e5m2', 'float8_e4m3'),
    ('fp32', 'none', 'fixed', 'dynamic', 'adaptive', 'per_sample', 'amax', 'measured'),
)
SEEDS = '_seeds'
"""str: Ends the names of the experiments that compare accuracies."""


def place(task, format, way=''):
    """Returns what tasks, formats and ways of scaling are sorted by."""
    names = task.removesuffix(SEEDS), format, way.partition('-')[0]
    known = zip(_ORDERS, names)
    indices = [order.index(n) if n in order else len(order) for order, n in known]
    return *indices, task, format, way


def windows_of(comparisons):
    """Returns the :class:`~experiments.reports.windows.Window` of each task and format.

    Args:
        comparisons (list of ComparedWay): All of them.
    """
    return windows.grouped(
        (row.experiment, row.format, row.way, row.scale, row.error) for row in comparisons
    )


def values(runs, comparisons, predictions, wishes):
    """Returns what a page may say, a dict of str by name.

    Besides the :data:`TABLES`, there are the means over the seeds of each column of
    :class:`StudyRun`, as ``error digits float16 per_sample``, and likewise ``ratio digits float16
    gaussian``; the best fixed scale's error and the window, ``best digits float16`` and
    ``window digits float16``; and a few numbers over all of them. Where runs with different ways of
    scaling were trained, and not compared on the same weights, ``trained`` stands before.
    """
    swept = [run for run in runs if not run.experiment.endswith(SEEDS)]
    trained = windows.grouped(
        (run.experiment, run.format, run.way, run.scale, run.error) for run in swept
    )
    seeded = [run for run in runs if run.experiment.endswith(SEEDS)]
    return {
        **_means(runs),
        **_of_windows(windows_of(comparisons)),
        **{_trained(name): value for name, value in _of_windows(trained).items()},
        **_of_predictions(predictions),
        **_of_wishes(wishes),
        'table threshold': _threshold_table(swept),
        **_of_accuracies(seeded),
        'runs': str(len(runs)),
    }


def _means(runs):
    named = {}
    for (experiment, format, way), group in _by(runs, 'experiment', 'format', 'way').items():
        for column in ('value', 'error', 'underflow', 'unscaled', 'late_worst', 'over'):
            mean = statistics.fmean(getattr(run, column) for run in group)
            named[f'{column} {experiment} {format} {way}'] = percent(mean)
    return named


def _trained(name):
    return 'table trained' if name == 'table windows' else f'trained {name}'


def _of_windows(found):
    named = {}
    ways = list(dict.fromkeys(way for window in found for way in window.policies))
    rows = []
    for window in found:
        name = f'{window.experiment} {window.format}'
        named[f'best {name}'] = percent(window.best)
        named[f'window {name}'] = windows.shown_range(window.scales)
        unscaled = window.fixed.get(1.0, math.nan)
        named[f'best ratio none {name}'] = f'{windows.ratio(unscaled, window.best):.2f}'
        row = [window.experiment, window.format, percent(unscaled), percent(window.best)]
        row += [windows.shown_range(window.scales)]
        rows.append(row + [windows.beside(window.policies.get(way), window.best) for way in ways])
    header = ['task', 'format', 'none', 'best fixed', 'window', *ways]
    named['table windows'] = markdown_table(header, rows, left=2)
    named['windows'] = str(len(found))
    empty = [f'{each.experiment} in {each.format}' for each in found if not each.scales]
    named['windows that are empty'] = _listed(empty)
    for way in ways:
        ratios = {
            f'{each.experiment} in {each.format}': windows.ratio(each.policies[way], each.best)
            for each in found
            if way in each.policies
        }
        over = {name: ratio for name, ratio in ratios.items() if not ratio <= _CLOSE}
        named[f'worst ratio {way}'] = f'{max(ratios.values(), default=math.nan):.2f}'
        named[f'best ratio {way}'] = f'{min(ratios.values(), default=math.nan):.2f}'
        named[f'windows kept {way}'] = f'{len(ratios) - len(over)} of {len(ratios)}'
        named[f'windows missed {way}'] = _listed(f'{n} ({r:.2f})' for n, r in over.items())
    return named


def _of_predictions(predictions):
    named = {}
    rows = []
    for (experiment, format), group in _by(predictions, 'experiment', 'format').items():
        row = [experiment, format, str(group[0].cells)]
        for each in group:
            median, lowest, highest = map(two_digits, (each.median, each.lowest, each.highest))
            named[f'ratio {experiment} {format} {each.criterion}'] = median
            row.append(f'{median} ({lowest} to {highest})')
        rows.append(row)
    header = ['task', 'format', 'layers × iterations', 'the paper’s Gaussian', 'per sample']
    named['table predictions'] = markdown_table(header, rows, left=2)
    return named


def _of_wishes(wishes):
    named = {}
    rows = []
    for (experiment, format), group in _by(wishes, 'experiment', 'format').items():
        single = min(wish.allowed for wish in group)
        short = [wish for wish in group if wish.wanted > single]
        least, most = min(w.wanted for w in group), max(w.wanted for w in group)
        name = f'{experiment} {format}'
        named[f'least wanted {name}'] = _power(least)
        named[f'most wanted {name}'] = _power(most)
        named[f'single {name}'] = _power(single)
        named[f'short {name}'] = f'{len(short)} of {len(group)}'
        cells = (_power(least), _power(most), _power(single), f'{len(short)} of {len(group)}')
        rows.append([experiment, format, *cells])
    header = ['task', 'format', 'least wanted', 'most wanted', 'largest single', 'not served by it']
    named['table wanted'] = markdown_table(header, rows, left=2)
    return named


def _threshold_table(runs):
    runs = [run for run in runs if run.format != windows.EXACT and run.way != 'dynamic-1000']
    runs = [run for run in runs if math.isnan(run.scale) or run.way == _UNSCALED]
    ways = list(dict.fromkeys(run.way for run in runs))
    rows = []
    for (experiment, format), group in _by(runs, 'experiment', 'format').items():
        cells = []
        for way in ways:
            of_way = [run for run in group if run.way == way]
            late = [run.late_worst for run in of_way]
            over = [run.over for run in of_way]
            means = map(statistics.fmean, (late, over)) if of_way else ()
            cells.append(' / '.join(map(percent, means)))
        rows.append([experiment, format, *cells])
    return markdown_table(['task', 'format', *ways], rows, left=2)


def _of_accuracies(runs):
    rows, differ = [], []
    for (experiment,), group in _by(runs, 'experiment').items():
        by_way = _by(group, 'way', 'format')
        values = {key: {run.seed: run.value for run in of} for key, of in by_way.items()}
        exact = values.get(_EXACT, {})
        tests = {key: paired_t_test(of, exact) for key, of in values.items() if key != _EXACT}
        adjusted = holm({key: p for key, (_, p) in tests.items()})
        task = experiment.removesuffix(SEEDS)
        differ += [f'{task} in {f} by {way}' for (way, f), p in adjusted.items() if p < _CHANCE]
        for (way, format), of in by_way.items() if tests else ():
            found = [run.value for run in of]
            row = [task, way, format, str(len(of))]
            spread = f' ± {percent(statistics.stdev(found))}' if len(found) > 1 else ''
            row.append(percent(statistics.fmean(found)) + spread)
            if (way, format) in tests:
                difference, p = tests[way, format]
                row += [f'{difference * 100:+.2f}', f'{p:.2g}', f'{adjusted[way, format]:.2g}']
            rows.append(row + [''] * (8 - len(row)))
    header = ['task', 'way', 'format', 'seeds', 'accuracy', 'less fp32, points', 'p', 'p, Holm']
    table = markdown_table(header, rows, left=3)
    return {'table accuracy': table, 'accuracies that differ': _listed(differ)}


def _by(rows, *columns):
    groups = collections.defaultdict(list)
    for row in rows:
        groups[tuple(getattr(row, column) for column in columns)].append(row)
    return groups


def _power(scale):
    return windows.shown_range([scale])


def _listed(names):
    return ', '.join(names) or 'none'
