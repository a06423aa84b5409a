"""The papers' pictures: what they show, of which runs, and where they say that there is nothing."""

import io

from chainerlp.extensions import files
from experiments.config.errors import ConfigError
from experiments.reports import layer_figures
from experiments.reports.run_files import PredictionRow, UnboundedRow
from experiments.reports.run_folder import RunFolder

import numpy
import pytest

LAYERS = ['/predictor/fc2', '/predictor/fc3', '/predictor/fc4']  # fc1 passes no gradient down
ITERATIONS = range(10, 101, 10)


def run(name, method='adaptive', scale=lambda layer, iteration: 2.0, threshold=None, **own):
    """A run of three layers, measured ten times; what is not given is as small as can be."""
    places = [(iteration, layer) for iteration in ITERATIONS for layer in range(3)]
    scales = [
        files.Row(i, LAYERS[k], 0, scale(k, i), scale(k, i), 1e-3 * (k + 1), 0.1, 0.0, 1.0)
        for i, k in places
    ]
    nonzero = [files.NonzeroRow(i, LAYERS[k], 0, 0.5 - 0.1 * k, 0.6) for i, k in places]
    predictions = [
        PredictionRow(i, LAYERS[k], 0, 0.0, 0.0, 0.0, 2.0 ** (10 - k), 2.0 ** (5 + k))
        for i, k in places
    ]
    unbounded = [UnboundedRow(i, LAYERS[k], 0, 100.0 * (k + 1), 16.0) for i, k in places]
    config = {'scaling': {'method': method, 'threshold': threshold}}
    found = dict(scales=scales, nonzero=nonzero, predictions=predictions, unbounded=unbounded)
    return RunFolder(f'results/cifar/{name}', config=config, **{**found, **own})


def drawn(figure):
    figure.savefig(io.BytesIO())
    return figure


def texts(figure):
    return ' '.join(text.get_text() for text in figure.findobj(lambda a: hasattr(a, 'get_text')))


def panels(figure):
    """The axes of runs, without those of colours."""
    return [axes for axes in figure.axes if axes.get_title() or axes.get_xlabel()]


@pytest.mark.parametrize('name', ['nonzero', 'unbounded', 'alpha'])
def test_runs_are_small_multiples_in_their_order_with_one_scale_of_each_axis(name):
    runs = [run(way) for way in ('b-seed=0', 'a-seed=0', 'd-seed=0', 'c-seed=0')]
    figure = drawn(layer_figures.draw(name, runs))
    found = panels(figure)
    assert [axes.get_title() for axes in found] == [
        'b-seed=0',
        'a-seed=0',
        'd-seed=0',
        'c-seed=0',
    ]
    assert len({axes.get_ylim() for axes in found}) == 1  # of alpha, since the runs are the same
    for axes in found:
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ['fc2', 'fc3', 'fc4']
        assert axes.get_xlabel() == 'layer of /predictor, from input to output'


@pytest.mark.parametrize('draw', [layer_figures.total_scales, layer_figures.underflow])
def test_maps_of_several_runs_have_one_scale_of_colours(draw):
    runs = [run('a', scale=lambda *_: 1.0), run('b', scale=lambda *_: 1024.0)]
    figure = drawn(draw(runs))
    first, second = (axes.collections[0] for axes in panels(figure))
    assert first.norm is second.norm or (first.norm.vmin, first.norm.vmax) == (
        second.norm.vmin,
        second.norm.vmax,
    )
    assert first.cmap == second.cmap
    assert len(figure.axes) == 3  # with that of the colours


def test_a_threshold_is_marked_once_and_only_where_a_run_knows_one():
    def marks(*thresholds):
        runs = [run(str(i), threshold=value) for i, value in enumerate(thresholds)]
        bar = layer_figures.underflow(runs).axes[-1]
        return [text.get_text() for text in bar.texts]

    assert marks(None, None) == []
    assert marks(None, 1e-3, 1e-3) == ['T']
    assert marks(0.1, 1e-3) == ['T', 'T']
    figure = layer_figures.underflow_by_layer([run('a', 'none'), run('b', threshold=0.01)])
    without, known = panels(figure)
    assert len(known.lines) == len(without.lines) + 1
    assert known.lines[-1].get_ydata() == [0.01, 0.01]


def test_nonzero_shares_are_drawn_at_a_few_iterations_beside_those_of_float32():
    (axes,) = panels(layer_figures.nonzero([run('a')]))
    rounded, exact = axes.lines[:5], axes.lines[5:]
    assert all(numpy.allclose(line.get_ydata(), [0.5, 0.4, 0.3]) for line in rounded)
    assert len(exact) == 5 and all(set(line.get_ydata()) == {0.6} for line in exact)
    assert [line.get_color() for line in rounded] == [line.get_color() for line in exact]


def test_scales_without_bounds_stand_beside_the_final_ones():
    (axes,) = panels(layer_figures.unbounded([run('a')]))
    free, final = axes.lines[:5], axes.lines[5:]
    assert {tuple(line.get_ydata()) for line in free} == {(100, 200, 300)}
    assert {tuple(line.get_ydata()) for line in final} == {(16, 16, 16)}


def test_expected_scales_go_from_the_loss_to_the_input_beside_the_largest_single_one():
    (axes,) = panels(drawn(layer_figures.draw('expected', [run('fp32-seed=0', 'fp32')])))
    wanted, single = axes.lines[:5], axes.lines[5:]
    assert {tuple(line.get_ydata()) for line in wanted} == {(2.0**8, 2.0**9, 2.0**10)}
    assert {tuple(line.get_ydata()) for line in single} == {(2.0**5, 2.0**5)}
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ['fc4', 'fc3', 'fc2']
    assert axes.get_xlabel().endswith('from the loss to the input')


def test_layers_that_want_no_scale_or_overflow_are_gaps():
    nothing = [PredictionRow(1, LAYERS[0], 0, 0.0, 0.0, 0.0, numpy.nan, numpy.nan)]
    drawn(layer_figures.draw('expected', [run('a', 'fp32', predictions=nothing)]))


def test_the_mean_scale_has_the_standard_deviation_over_the_iterations():
    # 2 in the first half and 6 in the second: mean 4, deviation 2.
    found = run('a', scale=lambda layer, iteration: 2.0 if iteration <= 50 else 6.0)
    (axes,) = panels(layer_figures.alpha([found]))
    bars = axes.containers[1]
    assert [patch.get_height() for patch in bars] == [4, 4, 4]
    (segments,) = bars.errorbar.lines[2]
    assert [segment[:, 1].tolist() for segment in segments.get_segments()] == [[2, 6]] * 3


def test_the_difference_is_the_first_run_less_the_second_from_the_loss_on():
    first, second = run('fixed-scale=128-seed=0', 'fixed'), run('adaptive-seed=0')
    second.scales = [row._replace(underflow=row.underflow / 2) for row in second.scales]
    figure = drawn(layer_figures.draw('difference', [first, second]))
    (axes,) = panels(figure)
    # Half of 0.3, 0.2 and 0.1 percent.
    assert numpy.allclose(axes.lines[0].get_ydata(), [0.15, 0.1, 0.05])
    assert 'fixed-scale=128-seed=0\nless that of adaptive-seed=0' in texts(figure)


def test_a_layer_that_one_of_them_did_not_report_at_a_time_is_a_gap():
    first, second = run('a'), run('b')
    del second.scales[0]
    (axes,) = panels(drawn(layer_figures.difference([first, second])))
    assert numpy.isnan(axes.lines[0].get_ydata()).tolist() == [False, False, True]


def test_runs_that_cannot_be_subtracted_are_told():
    other = run('b')
    other.scales = other.scales[:-1]
    with pytest.raises(ConfigError, match='given 1 runs, allowed: two'):
        layer_figures.draw('difference', [run('a')])
    later = run('b')
    later.scales = [row._replace(iteration=row.iteration + 1) for row in later.scales]
    for wrong in (run('b', scales=[row._replace(layer='/x') for row in other.scales]), later):
        with pytest.raises(ConfigError, match='given cifar/a and cifar/b with other'):
            layer_figures.draw('difference', [run('a'), wrong])


@pytest.mark.parametrize(
    'name, lacking',
    [
        ('nonzero', dict(nonzero=[])),
        ('unbounded', dict(unbounded=[])),
        ('expected', dict(method='fp32', predictions=[])),
        ('expected', dict(method='adaptive')),
        ('alpha', dict(method='fixed')),
        ('difference', dict(scales=[])),
    ],
)
def test_a_picture_of_runs_without_what_it_shows_says_what_they_need(name, lacking):
    with pytest.raises(ConfigError) as raised:
        layer_figures.draw(name, [run('a', **lacking)])
    needed = layer_figures.FIGURES[name][2]
    assert str(raised.value) == (
        f'--figure {name}: given no run with what it shows, allowed: {needed}'
    )


def test_a_folder_named_like_a_formula_is_drawn():
    drawn(layer_figures.draw('alpha', [run('$\\frac$')]))


def test_deep_networks_are_named_as_far_as_there_is_room():
    rows = [
        files.Row(1, f'/predictor/block{k}/conv', 0, 2.0, 2.0, 0.1, 0.1, 0.0, 1.0)
        for k in range(110)
    ]
    (axes,) = panels(drawn(layer_figures.alpha([run('a', scales=rows)])))
    labels = [tick.get_text() for tick in axes.get_xticklabels()]
    assert len(labels) == 22 and labels[:2] == ['block0/conv', 'block5/conv']
