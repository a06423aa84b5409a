"""Whether means of paired values differ: the t-test of differences, adjusted for many of them."""

import math
import statistics

from scipy import stats

_DIGITS = 6  # accuracies are sums in float32: equal ones differ in the eighth


def paired_t_test(values, reference):
    """Compares values with those of a reference, in pairs.

    Args:
        values (dict): Numbers by what they have in common with the reference's, such as a seed.
        reference (dict): Likewise.

    Returns:
        tuple: The mean difference over the pairs, and the two-sided p-value of the paired t-test;
        that is 1 where all differences are 0, and NaN where there are fewer than two, or all are
        alike. The difference is NaN if there is no pair.
    """
    pairs = values.keys() & reference.keys()
    differences = [round(values[key] - reference[key], _DIGITS) for key in pairs]
    mean = statistics.fmean(differences) if differences else math.nan
    if differences and not any(differences):
        return mean, 1.0
    if len(set(differences)) < 2:
        return mean, math.nan
    return mean, float(stats.ttest_1samp(differences, 0).pvalue)


def holm(ps):
    """Returns p-values adjusted for their number (Holm 1979), a dict like the given one.

    Those that are NaN stay so, and do not count.
    """
    known = sorted((p, key) for key, p in ps.items() if not math.isnan(p))
    adjusted, largest = dict.fromkeys(ps, math.nan), 0.0
    for rank, (p, key) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[key] = largest
    return adjusted
