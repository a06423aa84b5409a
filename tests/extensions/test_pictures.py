"""The pictures: pure functions of rows, readable from one layer and point to many of both."""

import itertools

from chainerlp.extensions import files, pictures

import numpy
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def rows_of(layers, iterations, total_scale=None, underflow=None, unscaled=None):
    """Rows of layers /predictor/layer0 and on, by functions of layer and iteration."""
    return [
        files.Row(
            iteration,
            f'/predictor/layer{layer}',
            0,
            2.0,
            16.0 if total_scale is None else total_scale(layer, iteration),
            1e-4 if underflow is None else underflow(layer, iteration),
            0.05 if unscaled is None else unscaled(layer, iteration),
            0.0,
            1.0,
        )
        for iteration in iterations
        for layer in range(layers)
    ]


def histograms_of(layers, iteration=100, total_scale=16.0, bins=range(10, 20)):
    counts = numpy.zeros((layers, 60), int)
    counts[:, [2 + index for index in bins]] = 5
    counts[:, 0] = 50
    return files.histograms_of(rows_of(layers, [iteration], lambda *_: total_scale), counts)


DRAWINGS = {
    'scales': lambda layers, points: pictures.scales(rows_of(layers, points)),
    'underflow': lambda layers, points: pictures.underflow(rows_of(layers, points)),
    'layers': lambda layers, points: pictures.layers(rows_of(layers, points)),
    'histogram': lambda layers, points: pictures.histogram(histograms_of(layers, points[-1])),
}
EACH = pytest.mark.parametrize('name', sorted(DRAWINGS))
MANY = list(range(100, 2001, 100))


def drawn(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def texts_of(figure):
    drawn(figure)
    return [artist.get_text() for artist in figure.findobj(Text)]


def values_of(figure):
    mesh = figure.axes[0].collections[0]
    return mesh.get_array()


@EACH
@pytest.mark.parametrize(
    'layers, points',
    [(1, [7]), (8, MANY), (150, MANY), (150, [7])],
    ids=['one of one', '8 layers', '150 layers', '150 layers, one point'],
)
def test_everything_is_within_the_picture(name, layers, points):
    figure = DRAWINGS[name](layers, points)
    box = figure.get_tightbbox(drawn(figure))  # in inches
    width, height = figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


@EACH
@pytest.mark.parametrize('layers', [8, 150, pytest.param(400, marks=pytest.mark.slow)])
def test_layer_names_do_not_overlap(name, layers):
    figure = DRAWINGS[name](layers, MANY)
    renderer = drawn(figure)
    labels = figure.axes[0].get_yticklabels()
    boxes = sorted((box.y0, box.y1) for box in (t.get_window_extent(renderer) for t in labels))
    assert labels[0].get_text() == 'layer0'
    assert len(labels) == 8 if layers == 8 else 40 < len(labels) < 80
    for (_, below), (above, _) in itertools.pairwise(boxes):
        assert below <= above


@EACH
def test_the_axes_say_what_they_show(name):
    figure = DRAWINGS[name](150, MANY)
    labels = {axes.get_xlabel() for axes in figure.axes} | {
        axes.get_ylabel() for axes in figure.axes
    }
    assert 'layer of /predictor, from input to output, 1 in 3 named' in labels
    expected = {
        'scales': {'iteration', 'log$_2$(total scale)'},
        'underflow': {'iteration', 'underflow rate (white: none)'},
        'layers': {'scale (factor)', 'underflow rate (share of all elements)'},
        'histogram': {
            'share of elements (white: none)',
            '|gx|; left of the line, at $2^{-25}$, float16 rounds to zero',
        },
    }
    assert expected[name] <= labels


@EACH
def test_a_picture_can_have_a_title(name):
    rows, histograms = rows_of(2, [1]), histograms_of(2)
    data = histograms if name == 'histogram' else rows
    figure = getattr(pictures, name)(data, title='digits, adaptive, seed 0')
    assert figure.get_suptitle().startswith('digits, adaptive, seed 0')


@EACH
def test_nothing_to_draw_is_an_error_that_says_so(name):
    nothing = histograms_of(0) if name == 'histogram' else []
    with pytest.raises(ValueError, match='nothing to draw'):
        getattr(pictures, name)(nothing)


@EACH
def test_a_figure_is_returned(name):
    assert isinstance(DRAWINGS[name](3, MANY), Figure)


def test_the_heat_map_is_log2_of_the_total_scale_with_the_input_at_the_top():
    rows = rows_of(3, [10, 20], total_scale=lambda layer, iteration: 2.0 ** (layer + iteration))
    figure = pictures.scales(rows)
    assert values_of(figure).tolist() == [[10, 20], [11, 21], [12, 22]]
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ['layer0', 'layer1', 'layer2']
    bottom, top = axes.get_ylim()
    assert bottom > top


def test_a_column_lies_at_its_iteration():
    rows = rows_of(1, [10, 20, 40])
    edges = pictures.scales(rows).axes[0].collections[0].get_coordinates()[0, :, 0]
    assert edges.tolist() == [5, 15, 30, 50]
    one = pictures.scales(rows_of(1, [7])).axes[0]
    assert one.get_xticks().tolist() == [7]


def test_second_uses_of_a_layer_have_lines_of_their_own():
    row = files.Row(1, '/res', 0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    figure = pictures.underflow([row, row._replace(call=1)])
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ['res', 'res #1']


def test_what_was_not_reported_is_left_out():
    rows = rows_of(2, [1, 2])
    del rows[1]
    values = values_of(pictures.scales(rows))
    assert values.mask.tolist() == [[False, False], [True, False]]


@pytest.mark.parametrize('name', ['scales', 'layers'])
def test_any_scale_can_be_drawn(name):
    for scales in ([1.0, 0.0, numpy.inf, numpy.nan, 2.0**-20, 3.0, 2.0**100], [numpy.nan], [0.0]):
        rows = rows_of(len(scales), [1, 2], total_scale=lambda layer, _, s=scales: s[layer])
        drawn(getattr(pictures, name)(rows))


@pytest.mark.parametrize('name', ['underflow', 'layers'])
@pytest.mark.parametrize('threshold', [1e-12, 1e-8, 1e-7, 1e-3, 0.5])
def test_any_rate_can_be_drawn(name, threshold):
    for rates in ([0.0, 1.0, 1e-12, 1e-3, numpy.nan], [numpy.nan], [1.0]):
        rows = rows_of(
            len(rates),
            [1, 2],
            underflow=lambda layer, _, r=rates: r[layer],
            unscaled=lambda layer, _, r=rates: r[-1 - layer],
        )
        drawn(getattr(pictures, name)(rows, threshold))


def test_no_underflow_at_all_is_said():
    figure = pictures.underflow(rows_of(3, [1, 2], underflow=lambda *_: 0.0))
    assert 'no underflow' in texts_of(figure)
    figure = pictures.underflow(rows_of(3, [1, 2]))
    assert 'no underflow' not in texts_of(figure)


@pytest.mark.parametrize('name', ['underflow', 'layers'])
def test_the_threshold_is_marked(name):
    figure = getattr(pictures, name)(rows_of(3, [1, 2]), 0.02)
    assert 'T = 0.02' in texts_of(figure)


@pytest.mark.parametrize('name', ['underflow', 'layers'])
def test_no_threshold_is_marked_where_there_is_none(name):
    figure = getattr(pictures, name)(rows_of(3, [1, 2]))
    assert not any('T = ' in text for text in texts_of(figure))
    drawn(figure)


def test_colours_jump_at_the_threshold():
    mesh = pictures.underflow(rows_of(2, [1]), 0.02).axes[0].collections[0]
    shades = [mesh.cmap(mesh.norm(numpy.log10(rate))) for rate in (0.01, 0.0199, 0.0201, 0.04)]
    near, jump, near_too = (
        numpy.abs(numpy.subtract(*pair)).sum() for pair in itertools.pairwise(shades)
    )
    assert jump > 3 * max(near, near_too)


@pytest.mark.parametrize('name', ['scales', 'underflow'])
def test_a_darker_or_lighter_grey_tells_more_from_less(name):
    """What the colour-blind and a black and white print can see."""
    mesh = DRAWINGS[name](2, [1]).axes[0].collections[0]
    grey = mesh.cmap(numpy.linspace(0, 1, 64))[:, :3].dot([0.299, 0.587, 0.114])
    steps = numpy.diff(grey)
    assert (steps > -1e-3).all() or (steps < 1e-3).all()


def test_more_reports_than_pixels_show_the_largest_of_neighbours():
    rows = rows_of(1, range(1, 3001), underflow=lambda _, iteration: float(iteration == 1501))
    figure = pictures.underflow(rows)
    values = values_of(figure)
    assert values.shape[1] <= 800
    assert values.max() == 0  # log10 of the one report that lost everything
    assert figure.axes[0].get_xlabel() == 'iteration (largest of 4 reports)'


def test_the_newest_iteration_is_drawn_layer_by_layer():
    rows = rows_of(
        3,
        [1, 2],
        total_scale=lambda layer, iteration: 2.0 ** (layer * iteration),
        underflow=lambda layer, iteration: iteration * 1e-4,
        unscaled=lambda layer, iteration: layer * 1e-2,
    )
    figure = pictures.layers(rows)
    left, right = figure.axes
    lines = {line.get_label(): line.get_xdata() for line in [*left.lines, *right.lines]}
    assert figure.get_suptitle().endswith('iteration 2')
    assert list(lines['total scale']) == [1, 4, 16]
    assert list(lines['the layer’s own']) == [2, 2, 2]
    assert list(lines['with scaling']) == [2e-4] * 3
    assert list(lines['without scaling']) == [0, 1e-2, 2e-2]


def test_the_newest_histogram_is_drawn_true_and_as_stored():
    histograms = numpy.concatenate([histograms_of(2, 100), histograms_of(2, 200, 2.0**5)])
    figure = pictures.histogram(histograms)
    assert figure.get_suptitle().endswith('iteration 200')
    true, stored = (axes.collections[0] for axes in figure.axes[:2])
    assert [axes.get_title() for axes in figure.axes[:2]] == [
        'true gradient', 'as stored, times the total scale',
    ]  # fmt: skip

    def powers(mesh):
        ends = mesh.get_coordinates()[0, :-1, 0]
        return ends[~mesh.get_array().mask[0]].tolist()[1:]  # but for the zeros

    assert powers(stored) == list(range(-30, -20))
    assert powers(true) == list(range(-35, -25))
    assert true.get_array().sum(axis=1).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize('total_scale', [2.0**-70, 2.0**-12, 0.3, 3.0, 2.0**20, 2.0**50])
def test_nothing_is_lost_where_the_true_gradient_leaves_the_bins(total_scale):
    figure = pictures.histogram(histograms_of(2, 1, total_scale))
    for axes in figure.axes[:2]:
        assert axes.collections[0].get_array().sum(axis=1).tolist() == pytest.approx([1, 1])


def test_without_scaling_there_is_one_histogram():
    figure = pictures.histogram(histograms_of(3, total_scale=1.0))
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ['true gradient']


def uses(text):
    return [(path, 0) for path in text.split()]


@pytest.mark.parametrize(
    'reports, expected',
    [
        (['/a /b /c'], '/a /b /c'),
        (['/a /b /c', '/a /b /c'], '/a /b /c'),
        (['/a /c', '/a /b /c'], '/a /b /c'),
        (['/c', '/a /b /c', '/c /d'], '/a /b /c /d'),
        (['/a', '/b'], '/b /a'),
        ([], ''),
    ],
    ids=['one', 'same', 'a hole', 'grows both ways', 'disjoint', 'none'],
)
def test_the_order_is_that_of_all_reports_together(reports, expected):
    assert pictures.layer_order(map(uses, reports)) == uses(expected)


@pytest.mark.parametrize(
    'paths, names, holder',
    [
        ('/predictor/conv1 /predictor/res/conv1', ['conv1', 'res/conv1'], '/predictor'),
        ('/a/b/c /a/b/d', ['c', 'd'], '/a/b'),
        ('/conv /fc', ['conv', 'fc'], ''),
        ('/main/l1 /other/l1', ['main/l1', 'other/l1'], ''),
        ('/predictor/fc', ['fc'], '/predictor'),
        ('/', ['/'], ''),
        ('LinearFunction /predictor/fc', ['LinearFunction', '/predictor/fc'], ''),
        ('', [], ''),
    ],
)
def test_names_are_paths_without_what_all_share(paths, names, holder):
    assert pictures.layer_names(uses(paths)) == (names, holder)


def test_a_second_use_of_a_layer_is_numbered():
    assert pictures.layer_names([('/a', 0), ('/a', 1), ('/b', 0)])[0] == ['a', 'a #1', 'b']


def test_a_long_name_keeps_its_beginning_and_its_end():
    paths = [('/fc', 0), ('/extractor/stage4/block12/bottleneck/conv2', 1)]
    (_, name), _ = pictures.layer_names(paths)
    assert name.startswith('extractor/stage4') and name.endswith('bottleneck/conv2 #1')
    assert len(name) <= 34 + len(' #1')


def test_pictures_grow_with_the_layers_up_to_a_page():
    heights = [pictures.figure_height(count) for count in (1, 8, 30, 150, 1000)]
    assert heights == sorted(heights) and 3 < heights[0] < heights[2] and heights[-1] <= 11
