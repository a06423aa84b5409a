"""The links of the scaled functions, and the conversion of a model in place."""

from chainerlp.links.conversion import convert, restore
from chainerlp.links.convolution_2d import ScaledConvolution2D
from chainerlp.links.linear import ScaledLinear
from chainerlp.links.scaled_link import ScaledLink

__all__ = ['ScaledConvolution2D', 'ScaledLinear', 'ScaledLink', 'convert', 'restore']
