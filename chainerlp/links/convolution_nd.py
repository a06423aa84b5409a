"""N-D convolution links whose data gradient is scaled; beside ``chainer.links.ConvolutionND``."""

from chainerlp.functions import scaled_convolution_nd
from chainerlp.links.scaled_link import ScaledLink

from chainer import links


class ScaledConvolutionND(ScaledLink, links.ConvolutionND):
    """:class:`chainer.links.ConvolutionND` with a scaled data gradient.

    Args:
        args, kwargs: As :class:`chainer.links.ConvolutionND`; besides, ``policy``, see
            :class:`~chainerlp.links.ScaledLink`.
    """

    def forward(self, x):
        """Applies the layer; see :func:`~chainerlp.functions.scaled_convolution_nd`."""
        if self.W.array is None:
            self._initialize_params(x.shape[1])
        return scaled_convolution_nd(
            x,
            self.W,
            self.b,
            self.stride,
            self.pad,
            self.cover_all,
            self.dilate,
            self.groups,
            layer_scale=self.layer_scale,
        )


class ScaledConvolution1D(ScaledConvolutionND, links.Convolution1D):
    """:class:`chainer.links.Convolution1D` with a scaled data gradient."""


class ScaledConvolution3D(ScaledConvolutionND, links.Convolution3D):
    """:class:`chainer.links.Convolution3D` with a scaled data gradient."""
