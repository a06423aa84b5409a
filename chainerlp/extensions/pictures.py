"""Pictures of a run's scales: matplotlib figures of what ScaleReport wrote.

Importing this module imports matplotlib. No display is needed. For any run's folder::

    rows = files.read(folder + '/scales.csv')
    pictures.scales(rows).savefig('scales.png')
    histograms = files.read_histograms(folder + '/histogram.npz')
    pictures.histogram(histograms).savefig('histogram.png')

Each of these functions returns a :class:`~matplotlib.figure.Figure`, and raises ``ValueError`` if
there is nothing to draw. Layers run from input (top) to output (bottom). The colours can be told
apart by the colour-blind and in grey.
"""

import collections
import math

from chainerlp import formats
from chainerlp.extensions.files import EXPONENTS

import matplotlib
import numpy
from matplotlib import colors, ticker
from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREY = '#0072b2', '#d55e00', '0.75'  # of Okabe and Ito's palette
_MOST_COLUMNS = 800
_SMALLEST_SHARE = 1e-8
_LABEL_INCHES = 0.14
_MOST_LABEL_CHARACTERS = 34


def scales(rows, title=None):
    """Draws a heat map of log2(total scale), layers by iterations.

    Args:
        rows (list of ~chainerlp.extensions.files.Row): What was reported.
        title (str): The heading, such as the run's name.
    """
    uses, iterations, grid = grid_of(rows, 'total_scale')
    with numpy.errstate(all='ignore'):
        exponents = numpy.log2(grid)
    exponents[~numpy.isfinite(exponents)] = numpy.nan
    known = exponents[~numpy.isnan(exponents)]
    low, high = (known.min(), known.max()) if known.size else (0, 0)
    # At one value only, its colour stands in the middle of a few powers of two.
    room = max(0, 2 - (high - low) / 2)
    norm = colors.Normalize(numpy.floor(low - room), numpy.ceil(high + room))
    figure, axes = _canvas(uses, title or 'Total scale of the layers’ gradients')
    mesh = heat_map(axes, iterations, uses, exponents, cmap='viridis', norm=norm)
    bar = _colour_bar(figure, mesh, axes, 'log$_2$(total scale)')
    bar.locator = ticker.MaxNLocator(integer=True)
    return figure


def underflow(rows, threshold=None, title=None):
    """Draws a heat map of the underflow rate on a log axis, layers by iterations.

    The colours go from white (none) over yellow and grey to dark blue, with a jump at T.

    Args:
        rows (list of ~chainerlp.extensions.files.Row): What was reported.
        threshold (float): T, the rate that is accepted; it is marked. ``None``: there is none.
        title (str): As for :func:`scales`.
    """
    uses, iterations, grid = grid_of(rows, 'underflow')
    lowest = numpy.log10(_lowest_rate(grid, threshold))
    colours, norm = underflow_colours(threshold, lowest)
    rates = numpy.log10(numpy.maximum(grid, 10 ** (lowest - 1)))  # none: below the lowest colour
    figure, axes = _canvas(uses, title or 'Underflow rate of the layers’ gradients')
    mesh = heat_map(axes, iterations, uses, rates, cmap=colours, norm=norm)
    if not (grid > 0).any():
        axes.text(0.5, 0.5, 'no underflow', transform=axes.transAxes, ha='center', va='center')
    bar = _colour_bar(figure, mesh, axes, 'underflow rate (white: none)', extend='min')
    bar.set_ticks(numpy.arange(numpy.ceil(lowest), 1))
    bar.ax.yaxis.set_major_formatter(lambda value, _: f'$10^{{{value:.0f}}}$')
    if threshold is not None:
        bar.ax.axhline(numpy.log10(threshold), color='black', linewidth=2)
        beside = dict(transform=bar.ax.get_yaxis_transform(), ha='right', va='center', rotation=90)
        bar.ax.text(-0.3, numpy.log10(threshold), f'T = {threshold:.3g}', **beside)
    return figure


def layers(rows, threshold=None, title=None):
    """Draws the newest iteration, layer by layer: scales, and underflow with and without them.

    Args:
        rows (list of ~chainerlp.extensions.files.Row): What was reported.
        threshold (float): As for :func:`underflow`.
        title (str): As for :func:`scales`.
    """
    newest = max(row.iteration for row in _checked(rows))
    rows = [row for row in rows if row.iteration == newest]
    uses = [(row.layer, row.call) for row in rows]
    heading = f'{title or "Scales and underflow"}, iteration {newest}'
    figure, (left, right) = _canvas(uses, heading, panels=2)
    size = 5 if len(rows) <= 40 else 2.5
    places = range(len(rows))

    total_scale = [row.total_scale for row in rows]
    left.plot(total_scale, places, 'o-', color=_BLUE, ms=size, lw=0.7, label='total scale')
    own = dict(color=_ORANGE, ms=size + 1, label='the layer’s own')
    left.plot([row.scale for row in rows], places, 'x', **own)
    left.set_xscale('log', base=2)
    _widen_to_powers_of_two(left, total_scale + [row.scale for row in rows])
    left.set_xlabel('scale (factor)')

    lossy = numpy.array([(row.underflow_unscaled, row.underflow) for row in rows])
    lowest = _lowest_rate(lossy, threshold)
    right.hlines(places, lossy.min(axis=1), lossy.max(axis=1), color=_GREY, lw=size / 2.5)
    without = dict(color=_ORANGE, mfc='none', ms=size + 1, label='without scaling')
    right.plot(lossy[:, 0], places, 's', **without)
    right.plot(lossy[:, 1], places, 'o', color=_BLUE, ms=size, label='with scaling')
    if threshold is not None:
        right.axvline(threshold, color='black', lw=1, ls='--', label=f'T = {threshold:.3g}')
    right.set_xscale('symlog', linthresh=lowest, linscale=0.5)
    right.set_xlim(-lowest / 5, 1.5)
    right.set_xticks([0, *10.0 ** numpy.arange(numpy.log10(lowest), 1)])
    right.set_xlabel('underflow rate (share of all elements)')
    for axes in (left, right):
        axes.grid(color='0.92')
        axes.set_axisbelow(True)
        axes.legend(loc='lower center', bbox_to_anchor=(0.5, 1), ncols=3, fontsize=8, frameon=False)
    _label_layers(left, uses)
    return figure


def histogram(histograms, title=None):
    """Draws the newest histograms of log2|gx|, a line for each layer: true, and as stored.

    There is one panel only if nothing is scaled.

    Args:
        histograms (ndarray): What was reported, of :data:`chainerlp.extensions.files.HISTOGRAM`.
        title (str): As for :func:`scales`.
    """
    newest = _checked(histograms)['iteration'].max()
    shown = histograms[histograms['iteration'] == newest]
    uses = shown[['layer', 'call']].tolist()
    shifts = numpy.rint(numpy.log2(shown['total_scale'])).astype(int)
    panels = [('true gradient', shifts)]
    if shifts.any():
        panels.append(('as stored, times the total scale', numpy.zeros_like(shifts)))
    heading = f'{title or "Magnitudes of the layers’ gradients"}, iteration {newest}'
    figure, all_axes = _canvas(uses, heading, len(panels))
    all_axes = numpy.atleast_1d(all_axes)
    norm = colors.LogNorm(_lowest_rate(_shares(shown, shifts)[1], 1e-2), 1)
    for axes, (subtitle, shift) in zip(all_axes, panels):
        edges, shares = _shares(shown, shift)
        shares = numpy.ma.masked_equal(shares, 0)
        places = numpy.arange(len(uses) + 1) - 0.5
        mesh = axes.pcolormesh(edges, places, shares, cmap='viridis_r', norm=norm)
        axes.set_title(subtitle, fontsize=10)
        _mark_float16(axes, with_nan=shown['nan'].any())
    _label_layers(all_axes[0], uses)
    _colour_bar(figure, mesh, all_axes, 'share of elements (white: none)')
    return figure


def gradient_error(rows, title=None):
    """Draws the parameters' gradient errors over the training on a log axis, with their median.

    Args:
        rows (list of ~chainerlp.extensions.files.ErrorRow): What was measured.
        title (str): As for :func:`scales`.
    """
    by_parameter, by_iteration = collections.defaultdict(list), collections.defaultdict(list)
    for row in _checked(rows):
        if math.isfinite(row.error):
            by_parameter[row.parameter].append((row.iteration, row.error))
            by_iteration[row.iteration].append(row.error)
    if not by_parameter:
        raise ValueError('nothing to draw: no error is a finite number')
    figure = Figure(figsize=(8, 4.5), layout='constrained')
    axes = figure.add_subplot()
    colours = matplotlib.colormaps['viridis'](numpy.linspace(0, 0.9, len(by_parameter)))
    named = list(by_parameter)[0], list(by_parameter)[-1]
    for colour, (path, points) in zip(colours, by_parameter.items()):
        label = _shortened(path) if path in named else None  # between them, from dark to light
        axes.plot(*zip(*points), color=colour, linewidth=0.8, marker='.', markersize=3, label=label)
    medians = {iteration: numpy.median(errors) for iteration, errors in by_iteration.items()}
    axes.plot(medians.keys(), medians.values(), color=_ORANGE, linewidth=2.5, label='median')
    axes.legend(fontsize=8)
    if any(map(any, by_iteration.values())):  # not in a float32 training
        axes.set_yscale('log')
    axes.set(xlabel='iteration', ylabel='‖g − g32‖ / ‖g32‖')
    axes.set_title(title or 'Gradient error by parameter')
    return figure


def layer_order(reports):
    """Returns the uses of layers from input to output, each once, over all reports.

    A use that some reports lack comes after the one that it follows where it is there.

    Args:
        reports (iterable of list): For each report its uses, pairs of path and call, from input to
            output.
    """
    merged, known = [], set()
    for report in reports:
        if known.issuperset(report):
            continue
        position = 0
        for use in report:
            if use in known:
                position = merged.index(use)
            else:
                merged.insert(position, use)
                known.add(use)
            position += 1
    return merged


def layer_names(uses):
    """Returns short names of uses, and the part of the paths that they share.

    Args:
        uses (list of tuple): Pairs of path and call.

    Returns:
        tuple: A list of names, such as ``res/conv1`` or, for the second use of a link,
        ``res/conv1 #1``; and the path of what holds all of the layers, such as ``/predictor``, or
        an empty string.
    """
    parts = [path.split('/') for path, _ in uses]
    shared = 0
    while parts and all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    short = ['/'.join(p[shared:]) or '/' for p in parts]
    calls = [f' #{call}' if call else '' for _, call in uses]
    names = [_shortened(name) + call for name, call in zip(short, calls)]
    return names, '/'.join(parts[0][:shared]) if parts else ''


def figure_height(layers):
    """Returns how high a picture of so many layers is, in inches."""
    return min(max(2.2 + 0.2 * layers, 3.2), 11.0)


def _checked(rows):
    if len(rows) == 0:
        raise ValueError('nothing to draw: no rows were reported')
    return rows


def _canvas(uses, title, panels=1):
    size = (9 if panels == 1 else 11, figure_height(len(uses)))
    figure = Figure(size, dpi=110, layout='constrained')
    figure.suptitle(title, fontsize=11)
    return figure, figure.subplots(1, panels, sharey=True)


def _label_layers(axes, uses, inches=None):
    """Puts layer i at y = i, the input at the top, and names as many as there is room for."""
    names, holder = layer_names(uses)
    count = len(names)
    every = math.ceil(count * _LABEL_INCHES / ((inches or axes.figure.get_figheight()) - 1.4))
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_yticks(range(0, count, every), names[::every], fontsize=8)
    every_so_many = '' if every == 1 else f', 1 in {every} named'
    where = f' of {holder}' if holder else ''
    axes.set_ylabel(f'layer{where}, from input to output{every_so_many}', fontsize=9)


def _shortened(name):
    if len(name) <= _MOST_LABEL_CHARACTERS:
        return name
    kept = _MOST_LABEL_CHARACTERS // 2
    return f'{name[: kept - 1]}…{name[-kept:]}'


def grid_of(rows, column):
    """Returns uses, iterations, and an array of them, NaN where something was not reported."""
    reports = collections.defaultdict(list)
    for row in _checked(rows):
        reports[row.iteration].append((row.layer, row.call))
    uses, iterations = layer_order(reports.values()), sorted(reports)
    line = {use: index for index, use in enumerate(uses)}
    place = {iteration: index for index, iteration in enumerate(iterations)}
    grid = numpy.full((len(uses), len(iterations)), numpy.nan)
    for row in rows:
        grid[line[row.layer, row.call], place[row.iteration]] = getattr(row, column)
    return uses, numpy.array(iterations), grid


def heat_map(axes, iterations, uses, grid, inches=None, **colouring):
    """Draws a map, layers by iterations; what was not reported is hatched.

    Args:
        axes (~matplotlib.axes.Axes): Where.
        iterations (ndarray): As :func:`grid_of` returns it, like the following.
        uses (list of tuple): The layers.
        grid (ndarray): (layers, iterations), what is shown.
        inches (float): How high the axes are with title and label; by default the figure.
        **colouring: Of the mesh.

    Returns:
        ~matplotlib.collections.QuadMesh: The map.
    """
    # More columns than pixels would be drawn by chance; the largest of some neighbours is shown.
    merged = -(-len(iterations) // _MOST_COLUMNS)
    starts = numpy.arange(0, len(iterations), merged)
    grid = numpy.ma.masked_invalid(numpy.fmax.reduceat(grid, starts, axis=1))
    places = numpy.arange(len(uses) + 1) - 0.5
    mesh = axes.pcolormesh(edges_of(iterations[starts]), places, grid, **colouring)
    axes.patch.set(hatch='////', edgecolor='0.8')  # what was not reported
    axes.set_xlabel('iteration' if merged == 1 else f'iteration (largest of {merged} reports)')
    if len(iterations) == 1:
        axes.set_xticks(iterations)
    else:
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    _label_layers(axes, uses, inches)
    return mesh


def _colour_bar(figure, mesh, axes, label, **options):
    # Of the same width, and with the same tip, beside few layers and many.
    inches = figure.get_figheight()
    sizes = dict(aspect=4 * inches, extendfrac=0.15 / inches)
    bar = figure.colorbar(mesh, ax=axes, fraction=0.05, **sizes, **options)
    bar.set_label(label, fontsize=9)
    return bar


def underflow_colours(threshold, lowest):
    """Returns the colours of log10 of rates of underflow, and their norm.

    Args:
        threshold (float): T; whatever it is, it lies in the middle, with a jump of the colours.
            ``None``: there is none, and no jump.
        lowest (float): log10 of the rate at which they begin; what is less is white.
    """
    palette = matplotlib.colormaps['cividis_r']
    if threshold is None:
        return palette.with_extremes(under='white'), colors.Normalize(lowest, 0)
    accepted = palette(numpy.linspace(0.05, 0.35, 128))
    over = palette(numpy.linspace(0.6, 1, 128))
    listed = colors.ListedColormap(numpy.concatenate([accepted, over]))
    norm = colors.TwoSlopeNorm(numpy.log10(threshold), lowest, 0)
    return listed.with_extremes(under='white'), norm


def edges_of(centres):
    """Returns the edges of columns with these centres, an array."""
    if len(centres) == 1:
        return centres + numpy.array([-0.5, 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    first, last = 2 * centres[0] - middle[0], 2 * centres[-1] - middle[-1]
    return numpy.concatenate([[first], middle, [last]])


def _lowest_rate(rates, threshold):
    """Returns the power of ten from which rates are drawn: T / 100, or the smallest that occurs."""
    threshold = 1e-3 if threshold is None else threshold
    present = rates[rates > 0]
    smallest = min(present.min(initial=1.0), threshold / 100)
    # T has to be within what is drawn, however small it is.
    floor = min(_SMALLEST_SHARE, threshold / 100)
    return 10 ** numpy.floor(numpy.log10(max(smallest, floor)))


def _widen_to_powers_of_two(axes, values):
    finite = [v for v in values if 0 < v < numpy.inf]
    low, high = (numpy.log2(f(finite)) if finite else 0.0 for f in (min, max))
    axes.set_xlim(2.0 ** (low - 0.5 - (high == low)), 2.0 ** (high + 0.5 + (high == low)))


def _shares(histograms, shift):
    """Returns the edges and the shares of a picture's columns: zeros, below, bins, above.

    Line i is drawn ``shift[i]`` bins further down. NaNs are counted as above.
    """
    bins = histograms['counts'].shape[1]
    shifted = numpy.zeros((len(histograms), bins + 2))
    shifted[:, 0] = histograms['below']
    shifted[:, -1] = histograms['above'] + histograms['nan']
    for line, down in enumerate(shift):
        targets = numpy.clip(numpy.arange(1, bins + 1) - down, 0, bins + 1)
        numpy.add.at(shifted[line], targets, histograms['counts'][line])
    gap = numpy.zeros(len(histograms))
    below, middle, above = shifted[:, 0], shifted[:, 1:-1], shifted[:, -1]
    columns = numpy.column_stack([histograms['zero'], gap, below, gap, middle, gap, above])
    first, last = EXPONENTS[[0, -1]]
    ends = [first - 10, first - 6, first - 4, first - 1], [last + 1, last + 5]
    edges = numpy.concatenate([ends[0], EXPONENTS, ends[1]])
    return edges, columns / numpy.maximum(columns.sum(axis=1, keepdims=True), 1)


def _mark_float16(axes, with_nan):
    first, last = EXPONENTS[[0, -1]]
    powers = numpy.arange(first + 8, last, 8)
    ends = ['0', f'≤$2^{{{first}}}$', f'>$2^{{{last}}}$' + ('\nor NaN' if with_nan else '')]
    labels = [*ends[:2], *(f'$2^{{{power}}}$' for power in powers), ends[2]]
    axes.set_xticks([first - 8, first - 2, *powers, last + 3], labels, fontsize=8)
    lost = numpy.log2(formats.FLOAT16.underflow_threshold)
    axes.axvline(lost, color=_ORANGE, lw=1.2)
    axes.set_xlabel(f'|gx|; left of the line, at $2^{{{lost:.0f}}}$, float16 rounds to zero')
