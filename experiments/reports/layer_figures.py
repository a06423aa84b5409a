"""The papers' pictures of layers: several runs as small multiples, with one scale of colours.

The axes are those of the authors' notebooks; lines are coloured by iteration. Each function takes
finished or unfinished runs (:class:`~experiments.reports.run_folder.RunFolder`), whose panels come
in their order, and returns a :class:`~matplotlib.figure.Figure`.
"""

import math
import os
import textwrap

from chainerlp.extensions import pictures
from experiments.config.errors import ConfigError
from experiments.reports import figures
from experiments.reports.tables import percent

import matplotlib
import numpy
from matplotlib import colors, lines, ticker
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

_COLUMNS = 3
_MOST_ITERATIONS = 5  # that lines are drawn of
_MOST_LABELS = 22  # that have room below a panel
_SOLID = {'marker': '.', 'linewidth': 1}
_DOTTED = {'linestyle': ':', 'linewidth': 1.2}
_DASHED = {'linestyle': '--', 'linewidth': 1.2}


def total_scales(runs):
    """Draws maps of log2(total scale), layers by iterations."""
    known = [row.total_scale for run in runs for row in run.scales]
    known = [math.log2(scale) for scale in known if 0 < scale < math.inf]
    low, high = math.floor(min(known, default=0)), math.ceil(max(known, default=0))
    norm = colors.Normalize(low, max(high, low + 1))
    figure, bar = _maps(runs, 'total_scale', numpy.log2, cmap='viridis', norm=norm)
    bar.set_label('log$_2$(total scale)', fontsize=9)
    bar.locator = ticker.MaxNLocator(integer=True)
    return figure


def underflow(runs):
    """Draws maps of log10(underflow rate); beside the colours stands each T that a run knows."""
    present = [row.underflow for run in runs for row in run.scales if row.underflow > 0]
    thresholds = {run.config.get('scaling', {}).get('threshold') for run in runs} - {None}
    lowest = math.floor(math.log10(max(min([*present, *thresholds, 1e-3]), 1e-8)))
    palette, norm = pictures.underflow_colours(None, lowest)

    def drawn(rates):
        return numpy.log10(numpy.maximum(rates, 10.0 ** (lowest - 1)))

    figure, bar = _maps(runs, 'underflow', drawn, extend='min', cmap=palette, norm=norm)
    bar.set_label('underflow rate (white: less)', fontsize=9)
    powers = numpy.arange(lowest, 1)
    bar.set_ticks(powers, labels=[percent(10.0**power) for power in powers.tolist()])
    for threshold in sorted(thresholds):
        bar.ax.axhline(math.log10(threshold), color='black', linewidth=2)
        beside = dict(transform=bar.ax.get_yaxis_transform(), ha='right', va='center')
        bar.ax.text(-0.3, math.log10(threshold), 'T', **beside)
    return figure


def underflow_by_layer(runs):
    """Draws the underflow rate of each layer, on a log axis that begins with 0."""
    figure, panels, shown = _panels(runs, 'Underflow by layer', 'scales')
    thresholds = [run.config.get('scaling', {}).get('threshold') for run in runs]
    for axes, run, threshold in zip(panels, runs, thresholds):
        for iteration, values in shown.values(run.scales, 'underflow'):
            axes.plot(values, color=shown.colour(iteration), **_SOLID)
        axes.set_yscale('symlog', linthresh=1e-5, linscale=0.3)
        axes.set_ylim(0, 1)
        if threshold is not None:
            axes.axhline(threshold, color='#d55e00', **_DASHED)
    looks = {'T': _DASHED} if any(thresholds) else {}
    return _finish(figure, panels, 'share of elements that underflow', shown, looks)


def nonzero(runs):
    """Draws the share of nonzero elements of each layer's gradient, and that in float32."""
    figure, panels, shown = _panels(runs, 'Nonzero elements of the gradients', 'nonzero')
    for axes, run in zip(panels, runs):
        for iteration, values in shown.values(run.nonzero, 'nonzero'):
            axes.plot(values, color=shown.colour(iteration), **_SOLID)
        for iteration, values in shown.values(run.nonzero, 'nonzero_float32'):
            axes.plot(values, color=shown.colour(iteration), **_DOTTED)
        axes.yaxis.set_major_formatter(ticker.PercentFormatter(1))
    looks = {'after rounding': _SOLID, 'in a float32 pass': _DOTTED}
    return _finish(figure, panels, 'share of elements that are not zero', shown, looks)


def unbounded(runs):
    """Draws α as each layer's policy would choose it without bounds, beside the final one."""
    figure, panels, shown = _panels(runs, 'α without bounds, and final', 'unbounded')
    for axes, run in zip(panels, runs):
        for iteration, values in shown.values(run.unbounded, 'unbounded'):
            axes.plot(values, color=shown.colour(iteration), **_DOTTED)
        for iteration, values in shown.values(run.unbounded, 'scale'):
            axes.plot(values, color=shown.colour(iteration), **_SOLID)
        axes.set_yscale('log', base=2)
    return _finish(figure, panels, 'α', shown, {'without bounds': _DOTTED, 'final': _SOLID})


def difference(runs):
    """Draws the underflow of the first of two runs less that of the second, from the loss on.

    Raises:
        ConfigError: If there are not two, or not of one model and measured in the same iterations.
    """
    if len(runs) != 2:
        raise ConfigError(f'--figure difference: given {len(runs)} runs, allowed: two')
    first, second = runs
    grids = [pictures.grid_of(run.scales, 'underflow') for run in runs]
    common = sorted(set(grids[0][1].tolist()) & set(grids[1][1].tolist()))
    if grids[0][0] != grids[1][0] or not common:
        raise ConfigError(
            f'--figure difference: given {first.name} and {second.name} with other layers or other'
            ' measured iterations, allowed: runs of one model and one report.interval'
        )
    rows = [row for row in first.scales if row.iteration in common]
    subtracted = {row[:3]: row.underflow for row in second.scales}  # by iteration, layer and call
    rows = [
        row._replace(underflow=row.underflow - subtracted.get(row[:3], math.nan)) for row in rows
    ]
    names = _names(runs)
    title = f'Underflow of {names[0]}\nless that of {names[1]}'
    figure, (axes,), shown = _panels([first], title, 'scales', from_loss=True)
    axes.set_title('')
    for iteration, values in shown.values(rows, 'underflow'):
        axes.plot(100 * values[::-1], color=shown.colour(iteration), **_SOLID)
    axes.axhline(0, color='black', linewidth=0.8)
    return _finish(figure, [axes], 'Δ underflow rate, points', shown)


def expected(runs):
    """Draws the total scale that each layer wants, beside the largest single one, from the loss on.

    Wanted is the smallest at which no more than T of the elements underflow; what lies over the
    dashed line of its colour no single scale can serve, since another layer would overflow.
    """
    title = 'Scale expected by each layer'
    figure, panels, shown = _panels(runs, title, 'predictions', from_loss=True)
    for axes, run in zip(panels, runs):
        for iteration, values in shown.values(run.predictions, 'wanted'):
            axes.plot(values[::-1], color=shown.colour(iteration), **_SOLID)
        for iteration, values in shown.values(run.predictions, 'largest'):
            if not numpy.isnan(values).all():
                axes.axhline(numpy.nanmin(values), color=shown.colour(iteration), **_DASHED)
        axes.set_yscale('log', base=2)
    looks = {'wanted': _SOLID, 'largest that all layers allow': _DASHED}
    return _finish(figure, panels, 'total scale', shown, looks)


def alpha(runs):
    """Draws the mean of each layer's α over the measured iterations, ± its standard deviation."""
    title = 'Mean α by layer, ± standard deviation'
    figure, panels, _ = _panels(runs, title, 'scales', sharey=False)  # 2 here, 2^20 there
    for axes, run in zip(panels, runs):
        _, _, grid = pictures.grid_of(run.scales, 'scale')
        mean, deviation = numpy.nanmean(grid, axis=1), numpy.nanstd(grid, axis=1)
        axes.bar(range(len(mean)), mean, yerr=deviation, color='#56b4e9', ecolor='0.3', capsize=2)
    return _finish(figure, panels, 'mean α')


FIGURES = {
    'nonzero': (nonzero, 'nonzero', 'report.gradient_error'),
    'unbounded': (unbounded, 'unbounded', 'report.predictions: true and a policy with bounds'),
    'difference': (difference, 'scales', 'a report.interval that it reached'),
    'expected': (expected, 'predictions', 'method fp32, and report.predictions or a snapshot'),
    'alpha': (alpha, 'scales', 'a method with scales, and a report.interval that it reached'),
}
"""dict: By name what draws a picture, what of a run it is drawn from, and how a run gets that."""


def can_be_drawn(name, run):
    """Returns whether a run has what the picture of a name shows."""
    method = run.config.get('scaling', {}).get('method')
    if name == 'expected' and method != 'fp32':
        return False
    if name == 'alpha' and method in ('fp32', 'none', 'fixed', 'dynamic'):  # no scales of layers
        return False
    return bool(getattr(run, FIGURES[name][1]))


def draw(name, runs):
    """Draws the picture of a name, of those of some runs that have what it shows.

    Raises:
        ConfigError: If none has, or they do not fit together.
    """
    function, _, needed = FIGURES[name]
    shown = [run for run in runs if can_be_drawn(name, run)]
    if not shown:
        raise ConfigError(f'--figure {name}: given no run with what it shows, allowed: {needed}')
    return function(shown)


class _Iterations:
    """Which iterations of runs lines are drawn of, and in which colours.

    Args:
        rows (iterable): What was measured in any of the runs.
    """

    def __init__(self, rows):
        self._all = sorted({row.iteration for row in rows})
        self._norm = colors.Normalize(self._all[0], max(self._all[-1], self._all[0] + 1))
        palette = matplotlib.colormaps['viridis'](numpy.linspace(0, 0.9, 256))
        self._map = ScalarMappable(self._norm, colors.ListedColormap(palette))

    def colour(self, iteration):
        """Returns the colour of an iteration."""
        return self._map.to_rgba(iteration)

    def values(self, rows, column):
        """Yields the first, the last and a few iterations in between, each with its values."""
        _, iterations, grid = pictures.grid_of(rows, column)
        for place in _spread(len(iterations)):
            yield int(iterations[place]), grid[:, place]

    def explain(self, figure, panels):
        """Adds the scale of the colours, or says which iteration it is."""
        if len(self._all) > 1:
            bar = figure.colorbar(self._map, ax=panels, fraction=0.03, aspect=40)
            bar.set_label('iteration', fontsize=9)
            bar.set_ticks([self._all[place] for place in _spread(len(self._all))])
        else:
            figure.suptitle(f'{figure.get_suptitle()}, iteration {self._all[0]}', fontsize=11)


def _spread(count):
    """Returns the first, the last and a few places in between, of so many."""
    return numpy.linspace(0, count - 1, min(count, _MOST_ITERATIONS)).round().astype(int).tolist()


def _panels(runs, title, attribute, from_loss=False, sharey=True):
    figure, panels = _grid(runs, title, height=3.4, sharey=sharey)
    for axes, run in zip(panels, runs):
        uses, _, _ = pictures.grid_of(getattr(run, attribute), 'iteration')
        figures.name_layers(axes, uses, _MOST_LABELS, from_loss)
        axes.grid(alpha=0.3)
    return figure, panels, _Iterations(row for run in runs for row in getattr(run, attribute))


def _finish(figure, panels, label, shown=None, looks=()):
    figure.supylabel(label, fontsize=9)
    if shown is not None:
        shown.explain(figure, panels)
    if looks:
        handles = [lines.Line2D([], [], color='black', label=k, **v) for k, v in looks.items()]
        figure.legend(handles=handles, loc='outside lower center', ncols=len(looks), fontsize=8)
    return figure


def _grid(runs, title, height, **options):
    count = len(runs)
    columns = min(count, _COLUMNS)
    rows = math.ceil(count / columns)
    size = (1.2 + 4.2 * columns, 0.8 + height * rows)
    figure = Figure(size, dpi=110, layout='constrained')
    figure.suptitle(title, fontsize=11, parse_math=False)
    panels = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for axes in panels[count:]:
        axes.remove()
    for axes, name in zip(panels, _names(runs)):
        axes.set_title(name, fontsize=9, parse_math=False)  # a dollar sign is one
    return figure, panels[:count].tolist()


def _maps(runs, column, of_values, extend='neither', **colouring):
    most = max(len({(row.layer, row.call) for row in run.scales}) for run in runs)
    inches = min(max(1.6 + 0.1 * most, 2.4), 6.0)
    figure, panels = _grid(runs, column.replace('_', ' ').capitalize() + ' of the layers', inches)
    for axes, run in zip(panels, runs):
        uses, iterations, grid = pictures.grid_of(run.scales, column)
        with numpy.errstate(all='ignore'):
            mesh = pictures.heat_map(axes, iterations, uses, of_values(grid), inches, **colouring)
        axes.set_ylabel('')
    figure.supylabel('layer, from input to output', fontsize=9)
    return figure, figure.colorbar(mesh, ax=panels, fraction=0.03, aspect=40, extend=extend)


def _names(runs):
    """Names runs in lines that fit: as their folders; with that of several experiments before."""
    names = [run.name for run in runs]
    if len({os.path.dirname(name) for name in names}) == 1:
        names = [os.path.basename(name) for name in names]
    return [textwrap.fill(name.replace('-', '- '), 44).replace('- ', '-') for name in names]
