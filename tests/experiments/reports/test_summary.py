import dataclasses
import math

from chainerlp.extensions.files import ErrorRow
from experiments.config import loading
from experiments.reports import summary
from experiments.reports.summary import Result, Underflow

import pytest


def result(tiny, scaling, seed, **outcome):
    config = loading.load(tiny, [f'scaling={scaling}', f'seed={seed}']).single()
    return Result(config, seconds=1.0, **outcome)


def good(tiny, scaling, seed, accuracy):
    rates = Underflow(mean=0.05, mean_unscaled=0.2, worst_layer=0.1)
    return result(tiny, scaling, seed, value=accuracy, loss=0.5, underflow=rates, skipped=seed)


def cells(line):
    return [cell.strip() for cell in line.split('  ') if cell.strip()]


def test_seeds_of_one_method_are_one_line_with_mean_and_deviation(tiny):
    runs = [good(tiny, '{method: adaptive, threshold: 0.01}', s, 0.9 + s / 100) for s in (0, 1, 2)]
    line = summary.render(runs).splitlines()[2]
    assert cells(line) == [
        'adaptive-threshold=0.01',
        '3',
        '91.00% ± 1.00%',
        '0.500 ± 0.000',
        '20.0% ± 0.0%',
        '1.0%',
        '1.0 ± 1.0',
        '1.0 ± 0.0',
        '5.0% ± 0.0%',
        '10.0% ± 0.0%',
    ]


def test_a_single_run_has_no_deviation_and_its_method_may_have_no_threshold(tiny):
    line = summary.render([good(tiny, '{method: none}', 0, 0.9)]).splitlines()[2]
    assert cells(line)[:4] == ['none', '1', '90.00%', '0.500']
    assert cells(line)[5] == '–'


def test_columns_are_aligned(tiny):
    runs = [good(tiny, '{method: none}', 0, 0.9), good(tiny, '{method: fixed, scale: 8}', 0, 1.0)]
    lines = summary.render(runs).splitlines()[:4]
    assert len({len(line) for line in lines}) == 1
    assert lines[2].index('90.00%') == lines[3].index('100.00%') + 1


def test_what_underflow_means_for_fp32_is_said_only_where_there_is_fp32(tiny):
    assert 'lost nothing' in summary.render([good(tiny, '{method: fp32}', 0, 0.9)])
    assert 'lost nothing' not in summary.render([good(tiny, '{method: none}', 0, 0.9)])


def test_failed_runs_are_left_out_of_the_means_and_listed(tiny):
    failed = result(tiny, '{method: none}', 1, error='ValueError: no')
    text = summary.render([good(tiny, '{method: none}', 0, 0.9), failed])
    assert text.splitlines()[:2] == ['failed: none-seed=1: ValueError: no', '']
    assert cells(text.splitlines()[4])[:3] == ['none', '1 of 2', '90.00%']


def test_a_method_whose_runs_all_failed_has_an_empty_line(tiny):
    text = summary.render([result(tiny, '{method: none}', 1, error='ValueError: no')])
    assert set(cells(text.splitlines()[4])[2:]) == {'–'}


def test_a_loss_that_is_not_finite_is_shown_and_listed(tiny):
    runs = [
        good(tiny, '{method: none}', 0, 0.9),
        result(tiny, '{method: none}', 1, value=0.1, loss=math.nan, skipped=0),
    ]
    text = summary.render(runs)
    assert text.splitlines()[:2] == ['diverged: none-seed=1', '']
    assert cells(text.splitlines()[4])[3] == 'nan'


def test_what_was_not_measured_is_a_dash_with_its_reason_and_no_rate(tiny):
    runs = [result(tiny, '{method: none}', 0, value=0.1, loss=0.5, skipped=0)]
    text = summary.render(runs)
    line = cells(text.splitlines()[2])
    assert (line[4], line[5], *line[8:]) == ('–', '–', '–', '–')
    reasons = [line for line in text.splitlines() if line.startswith('– ')]
    assert [reason.split(maxsplit=1)[1] for reason in reasons] == [
        'T: the method knows none',
        'underflow: a run ended before its report.interval',
    ]
    full = summary.render([good(tiny, '{method: adaptive}', 0, 0.9)])
    assert '–' not in full


def test_gradient_errors_are_the_last_column_where_they_were_measured(tiny):
    runs = [good(tiny, '{method: none}', 0, 0.9), good(tiny, '{method: fp32}', 0, 0.9)]
    assert 'gradient error' not in summary.render(runs)
    measured = dataclasses.replace(runs[0], gradient_error=0.0123)
    lines = summary.render([measured, runs[1]]).splitlines()
    assert [line.rsplit('  ', 1)[-1].strip() for line in (lines[0], *lines[2:4])] == [
        'gradient error',
        '1.2%',
        '–',
    ]
    assert any(line.startswith('gradient   ‖g − g32‖') for line in lines)


def test_the_mean_error_is_that_of_the_medians():
    errors = {1: (0.1, 0.2, math.nan, 0.9), 2: (0.4, 0.6)}
    rows = [
        ErrorRow(iteration, f'/{index}', error)
        for iteration, of_parameters in errors.items()
        for index, error in enumerate(of_parameters)
    ]
    assert summary.mean_error(rows) == pytest.approx((0.2 + 0.5) / 2)
    assert math.isnan(summary.mean_error([]))
    assert summary.mean_error([*rows, ErrorRow(3, '/0', math.inf)]) == math.inf
