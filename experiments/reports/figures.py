"""The figures of a report: the curves of runs, and underflow and scales layer by layer."""

import itertools
import math

from chainerlp.extensions import pictures
from experiments import tasks

import matplotlib
import numpy
from matplotlib.figure import Figure

# Okabe and Ito's palette; runs beyond it differ by the line's style.
_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')
_STYLES = ('-', '--', ':', '-.')
_PANELS = (
    ('main/loss', 'training loss', 'log'),
    ('validation/main/loss', 'test loss', 'log'),
    *((key, title, 'linear') for key, title in tasks.titles().items()),
)
# Of the lines by layer.
_MOST_ITERATIONS = 5
_MOST_LABELS = 40
_MOST_NAMES = 60  # a legend of more leaves no room for the curves


def curves(runs):
    """Draws a panel for each key that some log has, a line for each run.

    Returns:
        ~matplotlib.figure.Figure: The picture, or ``None`` if no log has anything to draw.
    """
    panels = [panel for panel in _PANELS if any(panel[0] in e for run in runs for e in run.log)]
    if not panels:
        return None
    figure = Figure(figsize=(5 * len(panels), 4.2), layout='constrained', dpi=120)
    for column, (key, label, scale) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), column + 1)
        for index, run in enumerate(runs):
            points = [(entry['iteration'], entry[key]) for entry in run.log if key in entry]
            if points:
                colour, line = style(index)
                axes.plot(
                    *zip(*points),
                    color=colour,
                    linestyle=line,
                    marker='.' if len(points) < 30 else None,
                    label=run.name,
                )
        axes.set(xlabel='iteration', ylabel=label, yscale=scale)
        axes.grid(alpha=0.3)
    shown = {}
    for axes in figure.axes:  # not every run has something in every panel
        shown.update({label: line for line, label in zip(*axes.get_legend_handles_labels())})
    if len(shown) <= _MOST_NAMES:
        place = {'loc': 'outside lower center', 'ncols': min(3, len(runs)), 'fontsize': 8}
        figure.legend(shown.values(), shown.keys(), **place)
    return figure


def style(index):
    """Returns the colour and the line style of the curve of a number, from 0."""
    return _COLOURS[index % len(_COLOURS)], _STYLES[index // len(_COLOURS) % len(_STYLES)]


def by_layer(rows, threshold=None, title=None):
    """Draws underflow and total scale by layer, a line for each of a few iterations.

    Args:
        rows (list of ~chainerlp.extensions.files.Row): What ScaleReport wrote, iteration by
            iteration.
        threshold (float): T, the underflow that is accepted; it is marked. ``None``: there is none.
        title (str): What to write above it.

    Returns:
        ~matplotlib.figure.Figure: The picture.

    Raises:
        ValueError: If there are no rows.
    """
    reports = [list(group) for _, group in itertools.groupby(rows, lambda row: row.iteration)]
    if not reports:
        raise ValueError('nothing to draw: no rows were reported')
    # The first, the last and a few in between.
    chosen = numpy.linspace(0, len(reports) - 1, min(len(reports), _MOST_ITERATIONS)).round()
    shown = [reports[i] for i in sorted(set(chosen.astype(int).tolist()))]
    uses = pictures.layer_order([(row.layer, row.call) for row in report] for report in shown)
    places = {use: place for place, use in enumerate(uses)}
    figure = Figure(figsize=(11, 4.6), layout='constrained', dpi=110)
    figure.suptitle(title or 'Gradients by layer', fontsize=11)
    left, right = figure.subplots(1, 2)
    colours = matplotlib.colormaps['viridis'](numpy.linspace(0, 0.9, len(shown)))
    for colour, report in zip(colours, shown):
        layers = numpy.array([places[row.layer, row.call] for row in report])
        style = {'color': colour, 'marker': '.', 'label': f'iteration {report[0].iteration}'}
        left.plot(layers, [row.underflow for row in report], **style)
        right.plot(layers, [row.total_scale for row in report], **style)
    if threshold is not None:
        left.axhline(threshold, color='#d55e00', lw=1, ls='--', label=f'T = {threshold:g}')
    # From the largest power of ten below what occurs; a layer that loses nothing stands at 0.
    left.set_yscale('symlog', linthresh=1e-5, linscale=0.3)
    left.set(ylabel='share of elements that underflow', ylim=(0, 1))
    right.set_yscale('log', base=2)
    right.set(ylabel='total scale of the gradient')
    for axes in (left, right):
        name_layers(axes, uses)
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    return figure


def name_layers(axes, uses, most=_MOST_LABELS):
    """Puts layer i at x = i, from input to output, and names as many as there is room for.

    They are named, not counted: the first layer of a model passes no gradient down, and is not
    among those that are measured.

    Args:
        axes (~matplotlib.axes.Axes): Where.
        uses (list of tuple): Paths and calls, from input to output.
        most (int): So many names have room.
    """
    names, holder = pictures.layer_names(uses)
    every = math.ceil(len(names) / most)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_xticks(range(0, len(names), every), names[::every], rotation=90, fontsize=7)
    where = f' of {holder}' if holder else ''
    axes.set_xlabel(f'layer{where}, from input to output', fontsize=9)
