"""The custom Chainer functions: what they compute is Chainer's, what they pass down is scaled."""

from chainerlp.functions.bilinear import ScaledBilinearFunction, scaled_bilinear
from chainerlp.functions.convolution_2d import (
    ScaledConvolution2DFunction,
    scaled_convolution_2d,
)
from chainerlp.functions.convolution_nd import (
    ScaledConvolutionNDFunction,
    scaled_convolution_nd,
)
from chainerlp.functions.data_gradient import data_gradient, has_data_gradient
from chainerlp.functions.deconvolution_2d import (
    ScaledDeconvolution2DFunction,
    scaled_deconvolution_2d,
)
from chainerlp.functions.deconvolution_nd import (
    ScaledDeconvolutionNDFunction,
    scaled_deconvolution_nd,
)
from chainerlp.functions.deformable_convolution_2d_sampler import (
    scaled_deformable_convolution_2d_sampler,
)
from chainerlp.functions.depthwise_convolution_2d import scaled_depthwise_convolution_2d
from chainerlp.functions.layer_scale import LayerScale
from chainerlp.functions.linear import ScaledLinearFunction, scaled_linear
from chainerlp.functions.local_convolution_2d import (
    ScaledLocalConvolution2DFunction,
    scaled_local_convolution_2d,
)
from chainerlp.functions.n_step_rnn import scaled_n_step_rnn
from chainerlp.functions.scaled_function import ScaledFunction

__all__ = [
    'LayerScale',
    'ScaledBilinearFunction',
    'ScaledConvolution2DFunction',
    'ScaledConvolutionNDFunction',
    'ScaledDeconvolution2DFunction',
    'ScaledDeconvolutionNDFunction',
    'ScaledFunction',
    'ScaledLinearFunction',
    'ScaledLocalConvolution2DFunction',
    'data_gradient',
    'has_data_gradient',
    'scaled_bilinear',
    'scaled_convolution_2d',
    'scaled_convolution_nd',
    'scaled_deconvolution_2d',
    'scaled_deconvolution_nd',
    'scaled_deformable_convolution_2d_sampler',
    'scaled_depthwise_convolution_2d',
    'scaled_linear',
    'scaled_local_convolution_2d',
    'scaled_n_step_rnn',
]
