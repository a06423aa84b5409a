"""The curves of runs, and the axes of layers that other figures share."""

import math
import statistics

from chainerlp.extensions import pictures
from experiments import tasks

from matplotlib.figure import Figure

# Okabe and Ito's palette; runs beyond it differ by the line's style.
_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')
_STYLES = ('-', '--', ':', '-.')
_PANELS = (
    ('main/loss', 'training loss', 'log'),
    ('validation/main/loss', 'test loss', 'log'),
    *((key, title, 'linear') for key, title in tasks.titles().items()),
)
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


def gradient_errors(runs):
    """Draws the gradient error over the training, a line for each run.

    Args:
        runs (list of ~experiments.reports.run_folder.RunFolder): Some that measured it, and round
            something: in float32 it is 0.
    """
    figure = Figure(figsize=(8, 4.2), layout='constrained', dpi=110)
    axes = figure.add_subplot()
    for index, run in enumerate(runs):
        colour, line = style(index)
        points = median_errors(run.errors)
        axes.plot(points.keys(), points.values(), color=colour, linestyle=line, label=run.name)
    axes.set_yscale('log')
    axes.set(xlabel='iteration', ylabel='gradient error, median over parameters')
    axes.grid(alpha=0.3)
    figure.legend(loc='outside lower center', ncols=min(3, len(runs)), fontsize=8)
    return figure


def median_errors(rows):
    """Returns the medians over the parameters that are finite, a dict by iteration.

    Args:
        rows (list of ~chainerlp.extensions.files.ErrorRow): What was measured.
    """
    errors = {}
    for row in rows:
        if not math.isnan(row.error):
            errors.setdefault(row.iteration, []).append(row.error)
    medians = {iteration: statistics.median(found) for iteration, found in errors.items()}
    return {iteration: median for iteration, median in medians.items() if math.isfinite(median)}


def style(index):
    """Returns the colour and the line style of the curve of a number, from 0."""
    return _COLOURS[index % len(_COLOURS)], _STYLES[index // len(_COLOURS) % len(_STYLES)]


def name_layers(axes, uses, most, from_loss=False):
    """Puts layer i at x = i, and names as many as there is room for.

    They are named, not counted: the first layer of a model passes no gradient down, and is not
    among those that are measured.

    Args:
        axes (~matplotlib.axes.Axes): Where.
        uses (list of tuple): Paths and calls, from input to output.
        most (int): So many names have room.
        from_loss (bool): Whether they go from the loss to the input, and not the other way.
    """
    names, holder = pictures.layer_names(uses)
    names = names[::-1] if from_loss else names
    every = math.ceil(len(names) / most)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_xticks(range(0, len(names), every), names[::every], rotation=90, fontsize=7)
    where = f' of {holder}' if holder else ''
    way = 'from the loss to the input' if from_loss else 'from input to output'
    axes.set_xlabel(f'layer{where}, {way}', fontsize=8)
