"""What a layer's scale does between two choices."""

from chainerlp import functions, policies

import numpy

GY = numpy.full((4, 3), 2.0**-20, numpy.float16)
W = numpy.ones((3, 5), numpy.float32)


def choose(layer_scale, total_scale, gy=GY):
    scale, total = layer_scale.choose(0, gy, W, total_scale, terms=3, product=None, backoff=1.0)
    assert total == total_scale * scale
    return scale


def choose_amax(layer_scale, total_scale):
    product = numpy.full((4, 5), 2.0**-10, numpy.float32)
    scale, total = layer_scale.choose(0, GY, W, total_scale, terms=3, product=product, backoff=1.0)
    assert total == total_scale * scale
    return scale


def test_a_scale_is_kept_for_the_interval_whatever_the_gradient():
    layer_scale = functions.LayerScale(policies.Adaptive(interval=3))
    first = choose(layer_scale, 1.0)
    assert first == 16  # Adaptive's max_scale
    assert [choose(layer_scale, 1.0, gy=GY * 0 + 1) for _ in range(3)] == [first, first, 1.0]


def test_a_scale_that_is_kept_obeys_the_bounds_of_the_day():
    layer_scale = functions.LayerScale(policies.Adaptive(interval=10, max_total_scale=1024))
    assert choose(layer_scale, 4.0) == 16
    assert choose(layer_scale, 1.0) == 16  # Adaptive's max_scale; what is kept are 64 in all
    assert choose(layer_scale, 4.0) == 16  # and it is not forgotten for that


def test_what_is_kept_is_the_total_scale():
    layer_scale = functions.LayerScale(policies.Amax(interval=10))
    total = 8 * choose_amax(layer_scale, 8.0)
    assert [choose_amax(layer_scale, s) * s for s in (1.0, 2.0**20, 8.0)] == [total] * 3
