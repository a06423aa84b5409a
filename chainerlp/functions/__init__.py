"""The custom Chainer functions: what they compute is Chainer's, what they pass down is scaled."""

from chainerlp.functions.cast import ScaledCastFunction, scaled_cast
from chainerlp.functions.convolution import (
    ScaledConvolution2DFunction,
    ScaledConvolutionNDFunction,
    ScaledDeconvolution2DFunction,
    ScaledDeconvolutionNDFunction,
    ScaledLocalConvolution2DFunction,
    scaled_convolution_2d,
    scaled_convolution_nd,
    scaled_deconvolution_2d,
    scaled_deconvolution_nd,
    scaled_deformable_convolution_2d_sampler,
    scaled_depthwise_convolution_2d,
    scaled_local_convolution_2d,
)
from chainerlp.functions.layer_functions import (
    backward_plain_layer,
    computes_in,
    give_compute_dtype,
    gradient_to_round,
    is_plain_layer,
    number_calls,
    rounded_to,
    rounds_gradient,
)
from chainerlp.functions.linear import (
    ScaledBilinearFunction,
    ScaledLinearFunction,
    scaled_bilinear,
    scaled_linear,
)
from chainerlp.functions.rnn import scaled_n_step_rnn
from chainerlp.functions.scaled_function import ScaledFunction
from chainerlp.functions.unscaled_backward import backward_in_float32, is_made_in_float32
from chainerlp.layer_scale import LayerScale

__all__ = [
    'LayerScale',
    'ScaledBilinearFunction',
    'ScaledCastFunction',
    'ScaledConvolution2DFunction',
    'ScaledConvolutionNDFunction',
    'ScaledDeconvolution2DFunction',
    'ScaledDeconvolutionNDFunction',
    'ScaledFunction',
    'ScaledLinearFunction',
    'ScaledLocalConvolution2DFunction',
    'backward_in_float32',
    'backward_plain_layer',
    'computes_in',
    'give_compute_dtype',
    'gradient_to_round',
    'is_made_in_float32',
    'is_plain_layer',
    'number_calls',
    'rounded_to',
    'rounds_gradient',
    'scaled_bilinear',
    'scaled_cast',
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
