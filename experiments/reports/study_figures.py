"""The pictures of the study: several runs side by side, each with the same axes and colours."""

import collections
import math

from chainerlp.extensions import pictures
from experiments.reports import figures, windows
from experiments.reports.study_tables import SEEDS, place

import numpy
from matplotlib.figure import Figure

_SHOWN_WAYS = (
    'none',
    'dynamic-10',
    'adaptive',
    'adaptive-product',
    'per_sample',
    'amax',
    'measured',
)
_CRITERIA = (
    ('gaussian', 'the paper’s Gaussian', '#d55e00'),
    ('per_sample', 'per sample', '#0072b2'),
)
_SEED = 0  # whose run stands for those of all seeds in pictures by layer
_LATE = 0.75  # of the iterations; from there on they are called late


def task_of(run):
    """Returns the name of a run's task in the study."""
    return run.name.split('/')[0].removeprefix('study_')


def swept(runs):
    """Returns the runs of all ways of scaling, without those of many seeds."""
    return [run for run in runs if not task_of(run).endswith(SEEDS)]


def unscaled(runs):
    """Returns the runs without any scale."""
    return [run for run in runs if run.config.get('scaling', {}).get('method') == 'none']


def late(rows):
    """Returns the rows of the last quarter of a training, by their iterations."""
    last = max((row.iteration for row in rows), default=0)
    return [row for row in rows if row.iteration > _LATE * last]


def wishing(runs):
    """Returns for each task a float32 run that tells which scales its layers want, a dict.

    Those of many seeds are longer trainings in some tasks, and come first.
    """
    found = {}
    for run in sorted(runs, key=lambda run: not task_of(run).endswith(SEEDS)):
        is_exact = windows.format_of(run) == windows.EXACT and run.config.get('seed') == _SEED
        if is_exact and wishes(run):
            found.setdefault(task_of(run).removesuffix(SEEDS), run)
    return dict(sorted(found.items(), key=lambda item: place(item[0], '')))


def wishes(run):
    """Returns the total scales that each use of a layer wants, and allows, late in a run.

    Returns:
        dict: From path and call, from input to output, to the largest wanted and the least allowed
        scale; without those layers whose gradients are never looked at, or are zeros.
    """
    found = {}
    for row in late(run.predictions):
        if math.isfinite(row.wanted) and math.isfinite(row.largest):
            wanted, allowed = found.get((row.layer, row.call), (0.0, math.inf))
            scales = max(wanted, row.wanted), min(allowed, row.largest)
            found[row.layer, row.call] = scales
    return found


def draw(runs, compared, threshold):
    """Yields the name and the figure of each picture for which there are runs.

    Args:
        runs (list of ~experiments.reports.run_folder.RunFolder): The finished runs.
        compared (list of ~experiments.reports.windows.Window): Ways of scaling on the same weights.
        threshold (float): T, the accepted rate of underflow; it is marked.
    """
    if compared:
        yield 'windows', windows.figure(compared)
    wanting = wishing(runs)
    runs = swept(runs)
    by_task = collections.defaultdict(dict)
    for run in runs:
        is_one = run.config.get('seed') == _SEED and windows.format_of(run) == 'float16'
        if is_one and windows.way_of(run) in _SHOWN_WAYS:
            by_task[task_of(run)][windows.way_of(run)] = run
    if any(run.scales for of_task in by_task.values() for run in of_task.values()):
        yield 'underflow', _underflow(by_task, threshold)
    if any(run.errors for of_task in by_task.values() for run in of_task.values()):
        yield 'error', _errors(by_task)
    predicted = [run for run in unscaled(runs) if run.predictions]
    if predicted:
        yield 'predictions', _predictions(predicted)
    if wanting:
        yield 'wanted', _wanted(wanting, threshold)


def _panels(rows, columns, width, height, **options):
    figure = Figure(figsize=(width * columns, height * rows), layout='constrained', dpi=110)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _underflow(by_task, threshold):
    """Draws underflow, layers by iterations: a row of maps a task, a column a way of scaling."""
    ways = [way for way in _SHOWN_WAYS if any(way in of_task for of_task in by_task.values())]
    figure, panels = _panels(len(by_task), len(ways), 1.9, 1.9)
    colours, norm = pictures.underflow_colours(threshold, math.log10(threshold) - 3)
    for line, (task, of_task) in zip(panels, by_task.items()):
        for axes, way in zip(line, ways):
            if way not in of_task or not of_task[way].scales:
                axes.set_axis_off()
                continue
            axes.set_title(f'{task}, {way}', fontsize=8)
            axes.tick_params(labelsize=7)
            uses, iterations, grid = pictures.grid_of(of_task[way].scales, 'underflow')
            with numpy.errstate(divide='ignore'):
                rates = numpy.ma.masked_invalid(numpy.maximum(numpy.log10(grid), norm.vmin - 1))
            edges = pictures.edges_of(iterations)
            places = numpy.arange(len(uses) + 1) + 0.5
            mesh = axes.pcolormesh(edges, places, rates, cmap=colours, norm=norm)
            axes.invert_yaxis()
    for axes in panels[:, 0]:
        axes.set_ylabel('layer that passes a gradient down', fontsize=8)
    for axes in panels[-1]:
        axes.set_xlabel('iteration', fontsize=8)
    bar = figure.colorbar(mesh, ax=panels, fraction=0.03, aspect=40, extend='min')
    bar.set_label('log$_{10}$ of the underflow rate (white: less)', fontsize=8)
    bar.ax.axhline(math.log10(threshold), color='black', linewidth=2)
    powers = [power for power in range(math.ceil(norm.vmin), 1) if 10.0**power != threshold]
    bar.set_ticks([*powers, math.log10(threshold)], labels=[*powers, 'T'])
    return figure


def _errors(by_task):
    """Draws the gradient error over the training, the median over the parameters."""
    figure, panels = _panels(1, len(by_task), 3.6, 3.4)
    for axes, (task, of_task) in zip(panels[0], by_task.items()):
        for way, run in of_task.items():
            points = figures.median_errors(run.errors)
            colour, _ = figures.style(_SHOWN_WAYS.index(way))
            if points:
                look = dict(color=colour, marker='.', linewidth=1, label=way)
                axes.plot(points.keys(), points.values(), **look)
        axes.set(title=task, xlabel='iteration', yscale='log')
        axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel('gradient error, median over parameters')
    labelled = {}
    for axes in panels[0]:
        labelled.update(zip(*reversed(axes.get_legend_handles_labels())))
    place = dict(loc='outside lower center', ncols=len(labelled), fontsize=8)
    figure.legend(labelled.values(), labelled.keys(), **place)
    return figure


def _predictions(runs):
    """Draws predicted against measured underflow, a point a layer and iteration."""
    groups = collections.defaultdict(list)
    for run in runs:
        groups[task_of(run), windows.format_of(run)] += run.predictions
    tasks = list(dict.fromkeys(task for task, _ in groups))
    formats = list(dict.fromkeys(format for _, format in groups))
    figure, panels = _panels(len(formats), len(tasks), 2.8, 2.8, sharex=True, sharey=True)
    for line, format in zip(panels, formats):
        for axes, task in zip(line, tasks):
            rows = groups.get((task, format), [])
            if not rows:
                axes.set_axis_off()
                continue
            axes.plot([1e-5, 1], [1e-5, 1], color='black', linewidth=0.8)
            for column, label, colour in _CRITERIA:
                measured = [max(row.underflow, 1e-5) for row in rows]
                expected = [max(getattr(row, column), 1e-5) for row in rows]
                look = dict(s=7, color=colour, alpha=0.4, linewidths=0, rasterized=True)
                axes.scatter(measured, expected, label=label, **look)
            axes.set(xscale='log', yscale='log', xlim=(7e-6, 1.4), ylim=(7e-6, 1.4))
            axes.set_title(f'{task}, {format}', fontsize=9)
            axes.grid(alpha=0.3)
    panels[0, 0].legend(fontsize=8, loc='upper left')
    figure.supxlabel('measured share of elements that underflow', fontsize=9)
    figure.supylabel('predicted share', fontsize=9)
    return figure


def _wanted(runs, threshold):
    """Draws the total scale that each layer would want in float16, from the loss to the input."""
    figure, panels = _panels(-(-len(runs) // 4), min(len(runs), 4), 3.4, 3.0)
    for axes in panels.flat[len(runs) :]:
        axes.remove()
    for axes, (task, run) in zip(panels.flat, runs.items()):
        scales = list(wishes(run).values())[::-1]
        wanted, allowed = zip(*scales)
        places = numpy.arange(1, len(scales) + 1)
        axes.plot(places, wanted, 'o-', ms=4, lw=0.8, color='#0072b2')
        axes.plot(places, allowed, '.', ms=4, color='0.6')
        axes.axhline(min(allowed), color='#d55e00', linestyle='--', linewidth=1.2)
        axes.set_yscale('log', base=2)
        axes.set(title=task)
        axes.grid(alpha=0.3)
    figure.supxlabel('layer, from the loss to the input', fontsize=9)
    figure.supylabel('total scale', fontsize=9)
    names = (f'wanted: at most {threshold:.1%} underflow', 'allowed by this layer')
    place = dict(loc='outside upper center', ncols=3, fontsize=8)
    figure.legend(panels[0, 0].lines, [*names, 'largest that all layers allow'], **place)
    return figure
