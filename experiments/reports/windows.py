"""Which fixed loss scales work in a format, and where the policies stand beside them.

A fixed scale works if its gradient error is within twice that of the best way of scaling, policies
included: these scales are the *window*. It moves during a training and with the task, and may be
empty; a policy needs none.
"""

import collections
import dataclasses
import itertools
import math

from experiments.reports import figures
from experiments.reports.tables import percent

from matplotlib.figure import Figure

EXACT = 'float32'
"""str: The format of runs that round nothing."""

LEAST = 4
"""int: So many fixed scales make a window."""

_FACTOR = 2.0


@dataclasses.dataclass(frozen=True)
class Window:
    """The gradient errors of one experiment in one format, means over the seeds.

    Attributes:
        experiment (str): Its name.
        format (str): What the gradients were rounded to.
        fixed (dict of float to float): The error of each fixed scale, in order; 1 is ``none``.
        policies (dict of str to float): That of each other way of scaling, by its label without
            what says the format.
    """

    experiment: str
    format: str
    fixed: dict
    policies: dict

    @property
    def best(self):
        """float: The least error of a fixed scale."""
        return min(self.fixed.values())

    @property
    def scales(self):
        """List of float: The window; empty if no fixed scale works."""
        most = _FACTOR * min([self.best, *self.policies.values()])
        return [scale for scale, error in self.fixed.items() if error <= most < math.inf]


def windows(runs):
    """Returns the :class:`Window` of each experiment and format that has enough fixed scales.

    Args:
        runs (list of ~experiments.reports.run_folder.RunFolder): Runs of any kinds; those whose
            gradient errors were not measured do not count.
    """
    return grouped(
        (run.name.split('/')[0], format_of(run), way_of(run), scale_of(run), run.gradient_error)
        for run in runs
    )


def grouped(entries):
    """Returns the windows of what :func:`windows` finds in runs.

    Args:
        entries (iterable of tuple): Experiment, format, way of scaling, scale (NaN if it is not
            fixed) and gradient error; those without an error, or in float32, do not count.
    """
    fixed = collections.defaultdict(lambda: collections.defaultdict(list))
    policies = collections.defaultdict(lambda: collections.defaultdict(list))
    for experiment, format, way, scale, error in entries:
        group = experiment, format
        if math.isnan(error) or format == EXACT:
            continue
        if math.isnan(scale):
            policies[group][way].append(error)
        else:
            fixed[group][scale].append(error)
    return [
        Window(*group, _means(dict(sorted(errors.items()))), _means(policies[group]))
        for group, errors in fixed.items()
        if len(errors) >= LEAST
    ]


def format_of(run):
    """Returns the name of the format that a run's gradients were rounded to."""
    scaling = run.config.get('scaling', {})
    if scaling.get('method') == 'fp32':
        return EXACT
    return scaling.get('gradient_format') or scaling.get('compute') or 'float16'


def way_of(run):
    """Returns how a run scaled: the label of its way of scaling without what says the format."""
    label = run.name.split('/')[-1].rpartition('-seed=')[0]
    format = format_of(run)
    left_out = ('dtype=float32', f'gradient_format={format}', f'compute={format}', format)
    return '-'.join(part for part in label.split('-') if part not in left_out)


def scale_of(run):
    """Returns the constant of a run, 1 if there was none; NaN if it was not fixed."""
    scaling = run.config.get('scaling', {})
    is_fixed = scaling.get('method') in ('none', 'fixed')
    return float(scaling.get('scale', 1)) if is_fixed else math.nan


def table(found):
    """Returns the header and the rows, lists of str, of a table of windows."""
    names = list(dict.fromkeys(name for window in found for name in window.policies))
    rows = [
        [
            f'`{window.experiment}`, {window.format}',
            percent(window.best),
            shown_range(window.scales),
            *(beside(window.policies.get(name), window.best) for name in names),
        ]
        for window in found
    ]
    return ['experiment, format', 'best fixed scale', 'window', *names], rows


def figure(found):
    """Draws the gradient error by fixed scale, with the policies' lines, a panel for each window.

    An experiment is a row of panels.

    Returns:
        ~matplotlib.figure.Figure: The picture.
    """
    by_experiment = collections.defaultdict(list)
    for window in found:
        by_experiment[window.experiment].append(window)
    names = list(dict.fromkeys(name for window in found for name in window.policies))
    styles = {name: figures.style(number) for number, name in enumerate(names)}
    rows, columns = len(by_experiment), max(map(len, by_experiment.values()))
    drawn = Figure(figsize=(5 * columns, 3.8 * rows), layout='constrained', dpi=120)
    panels = drawn.subplots(rows, columns, squeeze=False)
    for line, of_experiment in zip(panels, by_experiment.values()):
        for axes, window in itertools.zip_longest(line, of_experiment):
            if window is None:
                axes.remove()
            else:
                _draw(axes, window, styles)
    drawn.supylabel('gradient error, median over parameters', fontsize=10)
    return drawn


def _draw(axes, window, styles):
    points = {scale: error for scale, error in window.fixed.items() if math.isfinite(error)}
    axes.plot(points.keys(), points.values(), color='black', marker='.', label='fixed')
    for name, error in window.policies.items():
        if math.isfinite(error):
            colour, line = styles[name]
            axes.axhline(error, label=name, linewidth=1.2, color=colour, linestyle=line)
    if window.scales:
        axes.axvspan(window.scales[0], window.scales[-1], color='0.9', zorder=0)
    axes.set_xscale('log', base=2)
    axes.set_yscale('log')
    axes.set(xlabel='fixed scale', title=f'{window.experiment}, {window.format}')
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def _means(errors):
    return {key: math.fsum(values) / len(values) for key, values in errors.items()}


def shown_range(scales):
    """Returns the ends of a window, such as ``2^3 to 2^9``.

    >>> shown_range([8.0, 64.0, 512.0]), shown_range([])
    ('2^3 to 2^9', 'empty')
    """
    if not scales:
        return 'empty'
    first, last = (f'2^{math.log2(scale):.0f}' for scale in (scales[0], scales[-1]))
    return first if first == last else f'{first} to {last}'


def beside(error, best):
    """Shows an error and its ratio to another one; nothing if there is none.

    >>> beside(0.0121, 0.011), beside(None, 0.011)
    ('1.2% (× 1.10)', '')
    """
    return '' if error is None else f'{percent(error)} (× {ratio(error, best):.2f})'


def ratio(error, best):
    """Returns the ratio of two errors; 1 where both are 0, or inf."""
    if error == best:
        return 1.0
    return error / best if best > 0 else math.inf
