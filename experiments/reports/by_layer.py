"""What happens to gradients on their way through the layers, at several iterations.

The paper's pictures of a run: the share of elements that underflow, layer by layer, and the scales.
"""

import itertools

import matplotlib
import numpy
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_MOST_ITERATIONS = 5


def draw(rows, threshold=None, title=None):
    """Draws underflow and total scale by layer, a line for each of a few iterations.

    Args:
        rows (list of ~chainerlp.extensions.scales_file.Row): What ScaleReport wrote, iteration by
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
    shown = [reports[i] for i in _spread(len(reports))]
    figure = Figure(figsize=(11, 4), layout='constrained', dpi=110)
    figure.suptitle(title or 'Gradients by layer', fontsize=11)
    left, right = figure.subplots(1, 2)
    colours = matplotlib.colormaps['viridis'](numpy.linspace(0, 0.9, len(shown)))
    for colour, report in zip(colours, shown):
        layers = numpy.arange(1, len(report) + 1)
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
        axes.set_xlabel('layer, from input to output')
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    return figure


def _spread(count):
    """Returns the places of the first, the last and a few in between."""
    places = numpy.linspace(0, count - 1, min(count, _MOST_ITERATIONS))
    return sorted(set(places.round().astype(int).tolist()))
