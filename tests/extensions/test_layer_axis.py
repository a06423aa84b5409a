"""Layers on an axis: in order, under names that can be told apart."""

from chainerlp.extensions import layer_axis

import pytest


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
    assert layer_axis.order(map(uses, reports)) == uses(expected)


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
    assert layer_axis.names(uses(paths)) == (names, holder)


def test_a_second_use_of_a_layer_is_numbered():
    assert layer_axis.names([('/a', 0), ('/a', 1), ('/b', 0)])[0] == ['a', 'a #1', 'b']


def test_a_long_name_keeps_its_beginning_and_its_end():
    paths = [('/fc', 0), ('/extractor/stage4/block12/bottleneck/conv2', 1)]
    (_, name), _ = layer_axis.names(paths)
    assert name.startswith('extractor/stage4') and name.endswith('bottleneck/conv2 #1')
    assert len(name) <= 34 + len(' #1')


def test_pictures_grow_with_the_layers_up_to_a_page():
    heights = [layer_axis.height(count) for count in (1, 8, 30, 150, 1000)]
    assert heights == sorted(heights) and 3 < heights[0] < heights[2] and heights[-1] <= 11
