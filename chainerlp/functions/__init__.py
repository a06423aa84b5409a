"""The custom Chainer functions: what they compute is Chainer's, what they pass down is scaled."""

from chainerlp.functions.convolution_2d import (
    ScaledConvolution2DFunction,
    scaled_convolution_2d,
)
from chainerlp.functions.data_gradient import data_gradient, has_data_gradient
from chainerlp.functions.layer_scale import LayerScale
from chainerlp.functions.linear import ScaledLinearFunction, scaled_linear
from chainerlp.functions.scaled_function import ScaledFunction

__all__ = [
    'LayerScale',
    'ScaledConvolution2DFunction',
    'ScaledFunction',
    'ScaledLinearFunction',
    'data_gradient',
    'has_data_gradient',
    'scaled_convolution_2d',
    'scaled_linear',
]
