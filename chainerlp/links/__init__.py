"""The links of the scaled functions, and the conversion of a model in place."""

from chainerlp.links.conversion import convert, original_name, overridden_call, restore
from chainerlp.links.functional_layers import FunctionalLayers
from chainerlp.links.scaled_links import (
    Cast,
    ScaledBilinear,
    ScaledCast,
    ScaledConvolution1D,
    ScaledConvolution2D,
    ScaledConvolution3D,
    ScaledConvolutionND,
    ScaledDeconvolution1D,
    ScaledDeconvolution2D,
    ScaledDeconvolution3D,
    ScaledDeconvolutionND,
    ScaledDeformableConvolution2DSampler,
    ScaledDepthwiseConvolution2D,
    ScaledDilatedConvolution2D,
    ScaledLinear,
    ScaledLink,
    ScaledLocalConvolution2D,
    ScaledNStepBiGRU,
    ScaledNStepBiLSTM,
    ScaledNStepBiRNNReLU,
    ScaledNStepBiRNNTanh,
    ScaledNStepGRU,
    ScaledNStepLSTM,
    ScaledNStepRNNReLU,
    ScaledNStepRNNTanh,
)
