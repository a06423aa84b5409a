"""N-D deconvolution links whose data gradient is scaled.

Beside ``chainer.links.DeconvolutionND``.
"""

from chainerlp.functions import scaled_deconvolution_nd
from chainerlp.links.scaled_link import ScaledLink

from chainer import links


class ScaledDeconvolutionND(ScaledLink, links.DeconvolutionND):
    """:class:`chainer.links.DeconvolutionND` with a scaled data gradient.

    Args:
        args, kwargs: As :class:`chainer.links.DeconvolutionND`; besides, ``policy``, see
            :class:`~chainerlp.links.ScaledLink`.
    """

    def forward(self, x):
        """Applies the layer; see :func:`~chainerlp.functions.scaled_deconvolution_nd`."""
        if self.W.array is None:
            self._initialize_params(x.shape[1])
        return scaled_deconvolution_nd(
            x,
            self.W,
            self.b,
            self.stride,
            self.pad,
            self.outsize,
            self.dilate,
            self.groups,
            layer_scale=self.layer_scale,
        )


class ScaledDeconvolution1D(ScaledDeconvolutionND, links.Deconvolution1D):
    """:class:`chainer.links.Deconvolution1D` with a scaled data gradient."""


class ScaledDeconvolution3D(ScaledDeconvolutionND, links.Deconvolution3D):
    """:class:`chainer.links.Deconvolution3D` with a scaled data gradient."""
