"""Rates in words."""

import math


def percent(rate, digits):
    """Shows a rate in percent; what was not measured is nan, and no percentage.

    >>> percent(0.0123, 1), percent(math.nan, 1)
    ('1.2%', 'nan')
    """
    return f'{rate:.{digits}%}' if math.isfinite(rate) else 'nan'
