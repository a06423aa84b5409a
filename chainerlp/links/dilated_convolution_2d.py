"""Dilated convolution link whose data gradient is scaled.

Beside ``chainer.links.DilatedConvolution2D``.
"""

from chainerlp.functions import scaled_convolution_2d
from chainerlp.links.scaled_link import ScaledLink

from chainer import links


class ScaledDilatedConvolution2D(ScaledLink, links.DilatedConvolution2D):
    """:class:`chainer.links.DilatedConvolution2D` with a scaled data gradient.

    Args:
        args, kwargs: As :class:`chainer.links.DilatedConvolution2D`; besides, ``policy``, see
            :class:`~chainerlp.links.ScaledLink`.
    """

    def forward(self, x):
        """Applies the layer; see :func:`~chainerlp.functions.scaled_convolution_2d`."""
        if self.W.array is None:
            self._initialize_params(x.shape[1])
        return scaled_convolution_2d(
            x,
            self.W,
            self.b,
            self.stride,
            self.pad,
            dilate=self.dilate,
            layer_scale=self.layer_scale,
        )
