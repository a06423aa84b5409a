"""Which fixed loss scales work in a format, and where the policies stand beside them.

A fixed scale works if its gradient error is within twice that of the best one: these scales are
the *window*. It moves during a training and with the task; a policy needs none.
"""

import collections
import dataclasses
import math

from experiments.reports import figures

from matplotlib.figure import Figure

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
        """List of float: The window; empty if no scale gives a finite error."""
        if not math.isfinite(self.best):
            return []
        return [scale for scale, error in self.fixed.items() if error <= _FACTOR * self.best]


def windows(runs):
    """Returns the :class:`Window` of each experiment and format that has enough fixed scales.

    Args:
        runs (list of ~experiments.reports.run_folder.RunFolder): Runs of any kinds; those whose
            gradient errors were not measured do not count.
    """
    fixed = collections.defaultdict(lambda: collections.defaultdict(list))
    policies = collections.defaultdict(lambda: collections.defaultdict(list))
    for run in runs:
        scaling = run.config.get('scaling', {})
        format = scaling.get('gradient_format') or scaling.get('compute') or 'float16'
        group = run.name.split('/')[0], format
        if math.isnan(run.gradient_error) or scaling.get('method') == 'fp32':
            continue
        if scaling.get('method') in ('none', 'fixed'):
            fixed[group][float(scaling.get('scale', 1))].append(run.gradient_error)
        else:
            label = run.name.split('/')[-1].rpartition('-seed=')[0]
            policies[group][_without_format(label, format)].append(run.gradient_error)
    return [
        Window(*group, _means(dict(sorted(errors.items()))), _means(policies[group]))
        for group, errors in fixed.items()
        if len(errors) >= LEAST
    ]


def table(found):
    """Returns the header and the rows, lists of str, of a table of windows."""
    names = list(dict.fromkeys(name for window in found for name in window.policies))
    rows = [
        [
            f'`{window.experiment}`, {window.format}',
            f'{window.best:.2%}',
            _range(window.scales),
            *(_beside(window.policies.get(name), window.best) for name in names),
        ]
        for window in found
    ]
    return ['experiment, format', 'best fixed scale', 'window', *names], rows


def figure(found):
    """Draws the gradient error by fixed scale, a panel for each window, with the policies' lines.

    Returns:
        ~matplotlib.figure.Figure: The picture.
    """
    drawn = Figure(figsize=(5 * len(found), 4.2), layout='constrained', dpi=120)
    for index, window in enumerate(found):
        axes = drawn.add_subplot(1, len(found), index + 1)
        points = {scale: error for scale, error in window.fixed.items() if math.isfinite(error)}
        axes.plot(points.keys(), points.values(), color='black', marker='.', label='fixed')
        for number, (name, error) in enumerate(window.policies.items()):
            if math.isfinite(error):
                style = dict(zip(('color', 'linestyle'), figures.style(number)))
                axes.axhline(error, label=name, linewidth=1.2, **style)
        if window.scales:
            axes.axvspan(window.scales[0], window.scales[-1], color='0.9', zorder=0)
        axes.set_xscale('log', base=2)
        axes.set_yscale('log')
        axes.set(xlabel='fixed scale', title=f'{window.experiment}, {window.format}')
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    drawn.axes[0].set_ylabel('gradient error, median over parameters')
    return drawn


def _means(errors):
    return {key: math.fsum(values) / len(values) for key, values in errors.items()}


def _without_format(label, format):
    left_out = ('dtype=float32', f'gradient_format={format}', f'compute={format}', format)
    return '-'.join(part for part in label.split('-') if part not in left_out)


def _range(scales):
    if not scales:
        return 'empty'
    first, last = (f'2^{math.log2(scale):.0f}' for scale in (scales[0], scales[-1]))
    return first if first == last else f'{first} to {last}'


def _beside(error, best):
    return '' if error is None else f'{error:.2%} (× {error / best:.2f})'
