"""Means of paired values are compared as statistics has it."""

import math

from experiments.reports.paired_test import holm, paired_t_test

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

ACCURACIES = st.lists(st.integers(0, 360), min_size=3, max_size=10)


@given(ACCURACIES, st.data())
def test_it_is_the_paired_t_test(counts, data):
    others = data.draw(st.lists(st.integers(0, 360), min_size=len(counts), max_size=len(counts)))
    found, exact = (dict(enumerate(numpy.array(c) / 360)) for c in (counts, others))
    difference, p = paired_t_test(found, exact)
    expected = numpy.mean(counts) / 360 - numpy.mean(others) / 360
    assert difference == pytest.approx(expected, abs=1e-6)  # as they are rounded
    steps = {a - b for a, b in zip(counts, others)}
    if steps == {0}:
        assert p == 1
    elif len(steps) == 1:
        assert math.isnan(p)
    else:
        expected = stats.ttest_rel(list(found.values()), list(exact.values())).pvalue
        assert p == pytest.approx(expected, rel=1e-2, abs=1e-12)


def test_equal_differences_of_float32_sums_are_equal():
    exact = {0: 0.9416667, 1: 0.95}
    found = {0: 0.9416667 + 0.005555566, 1: 0.95 + 0.005555556}
    assert math.isnan(paired_t_test(found, exact)[1])


def test_only_pairs_are_compared():
    difference, _ = paired_t_test({0: 0.5, 1: 0.6, 7: 0.0}, {0: 0.4, 1: 0.6, 9: 1.0})
    assert difference == pytest.approx(0.05)
    assert all(map(math.isnan, paired_t_test({0: 0.5}, {1: 0.5})))


def test_p_values_are_adjusted_for_their_number():
    # Three tests: 3, 2 and 1 times, and never less than one before.
    assert holm({'a': 0.04, 'b': 0.001, 'c': 0.03}) == {
        'b': pytest.approx(0.003),
        'c': pytest.approx(0.06),
        'a': pytest.approx(0.06),
    }
    assert holm({'a': 0.9, 'b': 0.8}) == {'a': 1, 'b': 1}


def test_those_that_are_unknown_do_not_count():
    adjusted = holm({'b': math.nan, 'a': 0.01, 'c': 0.001, 'd': 0.04})
    assert math.isnan(adjusted.pop('b'))
    assert adjusted == {key: pytest.approx(p) for key, p in dict(a=0.02, c=0.003, d=0.04).items()}
