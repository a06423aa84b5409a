"""Which fixed scales work in a format, and where the policies stand beside them."""

import math

from chainerlp.extensions.files import ErrorRow
from experiments.reports import windows
from experiments.reports.run_folder import RunFolder

import pytest

FORMAT = {'dtype': 'float32', 'gradient_format': 'float8_e4m3'}


def run(label, error, seed=0, **scaling):
    rows = [] if error is None else [ErrorRow(10, '/W', error)]
    return RunFolder(f'results/tiny/{label}-seed={seed}', {'scaling': scaling}, errors=rows)


def fixed(errors, **options):
    """Runs with the scales 1, 8, 64 and so on."""
    yield run('none', errors[0], method='none', **options)
    for exponent, error in enumerate(errors[1:], 1):
        scale = 8**exponent
        yield run(f'fixed-scale={scale}', error, method='fixed', scale=scale, **options)


def test_the_window_is_what_comes_within_twice_the_best():
    runs = [*fixed([0.9, 0.19, 0.1, 0.2, 0.3], **FORMAT)]
    runs += [
        run('per_sample-float8_e4m3', 0.05, method='per_sample', **FORMAT),
        run('per_sample-float8_e4m3', 0.15, seed=1, method='per_sample', **FORMAT),
        run('fp32', 0.0, method='fp32', dtype='float32'),
        run('amax-float8_e4m3', None, method='amax', **FORMAT),
    ]
    (window,) = windows.windows(runs)
    assert (window.experiment, window.format) == ('tiny', 'float8_e4m3')
    assert window.best == 0.1
    assert window.scales == [8, 64, 512]
    assert window.policies == {'per_sample': pytest.approx(0.1)}
    header, (row,) = windows.table([window])
    assert header == ['experiment, format', 'best fixed scale', 'window', 'per_sample']
    assert row == ['`tiny`, float8_e4m3', '10.0%', '2^3 to 2^9', '10.0% (× 1.00)']


def test_formats_are_apart_and_few_scales_are_no_window():
    runs = [*fixed([0.1, 0.2, 0.3]), *fixed([0.1, 0.2, 0.3, 0.4], **FORMAT)]
    assert [window.format for window in windows.windows(runs)] == ['float8_e4m3']
    runs += [run('fixed-scale=512', 0.4, method='fixed', scale=512)]
    assert [window.format for window in windows.windows(runs)] == ['float16', 'float8_e4m3']


def test_where_no_scale_works_the_window_is_empty():
    runs = [*fixed([math.inf] * 4, **FORMAT), run('amax', 0.1, method='amax', **FORMAT)]
    (window,) = windows.windows(runs)
    assert window.scales == []
    (row,) = windows.table([window])[1]
    assert row[1:] == ['inf', 'empty', '10.0% (× 0.00)']


def test_the_window_is_empty_where_a_policy_is_more_than_twice_as_good():
    runs = [*fixed([0.9, 0.5, 0.31, 0.5]), run('per_sample', 0.15, method='per_sample')]
    (window,) = windows.windows(runs)
    assert window.best == 0.31 and window.scales == []
    runs = [*fixed([0.9, 0.5, 0.29, 0.5]), run('per_sample', 0.15, method='per_sample')]
    (window,) = windows.windows(runs)
    assert window.scales == [64]


def test_the_picture_has_a_panel_a_window_and_a_line_a_policy():
    runs = [*fixed([0.9, 0.2, math.inf, 0.1], **FORMAT), run('amax', 0.1, method='amax', **FORMAT)]
    runs += fixed([0.1, 0.2, 0.3, 0.4])
    of_e4m3, of_half = windows.figure(windows.windows(runs)).axes
    assert list(of_e4m3.get_lines()[0].get_xdata()) == [1, 8, 512]
    assert [text.get_text() for text in of_e4m3.get_legend().get_texts()] == ['fixed', 'amax']
    assert len(of_half.get_lines()) == 1
    assert of_half.get_title() == 'tiny, float16'
