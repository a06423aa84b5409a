"""Tables in Markdown, and numbers as they stand in them."""

import itertools
import math
import re
import statistics

from experiments.config.errors import shortened

_LONGEST = 2000


def markdown_table(header, rows, left=1):
    """Returns a table, its first columns to the left and the others to the right.

    A stroke in a cell is no end of it.

    Args:
        header (list of str): The columns' names.
        rows (list of list of str): The cells.
        left (int): How many columns are to the left.
    """
    line = ['---'] * left + ['---:'] * (len(header) - left)
    lines = itertools.chain([header], [line], rows)
    lines = ([cell.replace('|', '\\|') for cell in cells] for cells in lines)
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines)


def literal(text):
    r"""Returns someone else's text as Markdown that shows it, and in one line, not too long.

    >>> print(literal('[x](y) <b> *a*'))
    \[x\](y) &lt;b> \*a\*
    """
    text = shortened(text, _LONGEST).replace('&', '&amp;').replace('<', '&lt;')
    return re.sub(r'[\\`*\[\]!]|\b_|_\b', r'\\\g<0>', text)


def percent(rate, digits=None):
    """Shows a rate in percent; what was not measured, NaN, as a dash.

    Args:
        rate (float): The rate.
        digits (int): How many after the point; by default so many that two count.

    >>> percent(0.01), percent(0.000456), percent(0.957), percent(1e-9), percent(math.inf)
    ('1.0%', '0.046%', '95.7%', '<0.0001%', 'inf')
    >>> percent(0.0123, 1), percent(math.nan, 1)
    ('1.2%', '–')
    """
    if math.isnan(rate):
        return '–'
    if not math.isfinite(rate):
        return str(rate)
    if digits is None and 0 < rate < 0.1:
        return '<0.0001%' if rate < 1e-6 else f'{two_digits(rate * 100)}%'
    return f'{rate:.{1 if digits is None else digits}%}'


def share(value):
    """Shows what a task's metric is, in percent.

    >>> share(0.91234), share(math.nan)
    ('91.23%', '–')
    """
    return percent(value, 2)


LOSS = '{:.3f}'.format
"""callable: Shows a loss; ``nan`` if it diverged."""


def mean_and_deviation(values, show):
    """Shows the mean of numbers, with their standard deviation if there are several.

    Args:
        values (list of float): The numbers; of none a dash is shown.
        show (callable): Shows one.

    >>> mean_and_deviation([0.5, 0.52], percent), mean_and_deviation([], LOSS)
    ('51.0% ± 1.4%', '–')
    """
    if not values:
        return '–'
    mean = statistics.fmean(values)
    if len(values) < 2 or not math.isfinite(mean):
        return show(mean)
    return f'{show(mean)} ± {show(statistics.stdev(values))}'


def two_digits(value):
    """Shows a number that is not negative to two digits that count, or all before the point.

    >>> two_digits(0.0123), two_digits(3.0), two_digits(12.4), two_digits(389.0)
    ('0.012', '3.0', '12', '389')
    """
    if value == 0 or not math.isfinite(value):
        return f'{value:.3g}'
    decimals = max(1 - math.floor(math.log10(float(f'{value:.2g}'))), 0)
    return f'{value:.{decimals}f}'
