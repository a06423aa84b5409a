"""The links of the scaled functions, and the conversion of a model in place."""

from chainerlp.links.bilinear import ScaledBilinear
from chainerlp.links.conversion import convert, restore
from chainerlp.links.convolution_2d import ScaledConvolution2D
from chainerlp.links.convolution_nd import (
    ScaledConvolution1D,
    ScaledConvolution3D,
    ScaledConvolutionND,
)
from chainerlp.links.deconvolution_2d import ScaledDeconvolution2D
from chainerlp.links.deconvolution_nd import (
    ScaledDeconvolution1D,
    ScaledDeconvolution3D,
    ScaledDeconvolutionND,
)
from chainerlp.links.deformable_convolution_2d import ScaledDeformableConvolution2DSampler
from chainerlp.links.depthwise_convolution_2d import ScaledDepthwiseConvolution2D
from chainerlp.links.dilated_convolution_2d import ScaledDilatedConvolution2D
from chainerlp.links.linear import ScaledLinear
from chainerlp.links.local_convolution_2d import ScaledLocalConvolution2D
from chainerlp.links.n_step_rnn import (
    ScaledNStepBiGRU,
    ScaledNStepBiLSTM,
    ScaledNStepBiRNNReLU,
    ScaledNStepBiRNNTanh,
    ScaledNStepGRU,
    ScaledNStepLSTM,
    ScaledNStepRNNReLU,
    ScaledNStepRNNTanh,
)
from chainerlp.links.scaled_link import ScaledLink

__all__ = [
    'ScaledBilinear',
    'ScaledConvolution1D',
    'ScaledConvolution2D',
    'ScaledConvolution3D',
    'ScaledConvolutionND',
    'ScaledDeconvolution1D',
    'ScaledDeconvolution2D',
    'ScaledDeconvolution3D',
    'ScaledDeconvolutionND',
    'ScaledDeformableConvolution2DSampler',
    'ScaledDepthwiseConvolution2D',
    'ScaledDilatedConvolution2D',
    'ScaledLinear',
    'ScaledLink',
    'ScaledLocalConvolution2D',
    'ScaledNStepBiGRU',
    'ScaledNStepBiLSTM',
    'ScaledNStepBiRNNReLU',
    'ScaledNStepBiRNNTanh',
    'ScaledNStepGRU',
    'ScaledNStepLSTM',
    'ScaledNStepRNNReLU',
    'ScaledNStepRNNTanh',
    'convert',
    'restore',
]
