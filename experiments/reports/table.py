"""The table that a command prints: plain text, one line for each way of scaling."""

import math
import statistics

from experiments.config import label

_LEGEND = """\
underflow  elements of the layers' data gradients that float16 rounds to zero: mean over layers and
           measured iterations; worst layer: mean of the layer that loses most; unscaled: what the
           same gradients would have lost at scale 1; T: the rate that the method accepts
skipped    updates, because of gradients that were not finite"""
_FP32 = """\
fp32       lost nothing: its underflow is what float16 would have lost"""


def render(results):
    """Renders results of one task, at least one, as a table with a legend.

    Several seeds of one way of scaling are one line, mean ± standard deviation. Runs that failed
    are left out of it and listed below, as are those that diverged.
    """
    groups = {}
    for result in results:
        groups.setdefault(label(result.config.scaling), []).append(result)
    header = ['method', 'runs', results[0].metric, 'loss', 'underflow', 'worst layer', 'unscaled']
    header += ['T', 'skipped', 'seconds']
    lines = aligned([header] + [_row(name, runs) for name, runs in groups.items()])
    lines += ['', _LEGEND]
    if any(result.config.scaling.method == 'fp32' for result in results):
        lines.append(_FP32)
    lines += [f'diverged: {result.name}' for result in results if result.diverged]
    lines += [f'failed: {result.name}: {result.error}' for result in results if result.error]
    return '\n'.join(lines)


def _row(name, runs):
    good = [run for run in runs if run.error is None]
    count = str(len(runs)) if len(good) == len(runs) else f'{len(good)} of {len(runs)}'
    threshold = getattr(runs[0].config.scaling, 'threshold', None)
    return (
        name,
        count,
        _mean([run.value for run in good], '.3f'),
        _mean([run.loss for run in good], '.3f'),
        _mean([run.underflow.mean for run in good], '.2%'),
        _mean([run.underflow.worst_layer for run in good], '.2%'),
        _mean([run.underflow.mean_unscaled for run in good], '.2%'),
        '-' if threshold is None else f'{threshold:.2%}',
        _mean([run.skipped for run in good], '.0f' if len(good) == 1 else '.1f'),
        _mean([run.seconds for run in good], '.1f'),
    )


def _mean(values, form):
    if not values:
        return '-'
    mean = math.fsum(values) / len(values)
    if not math.isfinite(mean):
        return 'nan'  # and not nan%
    if len(values) == 1:
        return format(mean, form)
    return f'{mean:{form}} ± {statistics.stdev(values):{form}}'


def percent(rate, digits):
    """Shows a rate in percent; what was not measured is nan, and no percentage.

    >>> percent(0.0123, 1), percent(math.nan, 1)
    ('1.2%', 'nan')
    """
    return f'{rate:.{digits}%}' if math.isfinite(rate) else 'nan'


def aligned(rows):
    """Aligns rows of strings in columns, the first to the left and the others to the right.

    The first row is the header; returns the lines, with one under it.
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append('  '.join(cells))
    lines.insert(1, '  '.join('-' * width for width in widths))
    return lines
