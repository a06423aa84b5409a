"""Depthwise convolution link whose data gradient is scaled.

Beside ``chainer.links.DepthwiseConvolution2D``.
"""

from chainerlp.functions import scaled_depthwise_convolution_2d
from chainerlp.links.scaled_link import ScaledLink

from chainer import links


class ScaledDepthwiseConvolution2D(ScaledLink, links.DepthwiseConvolution2D):
    """:class:`chainer.links.DepthwiseConvolution2D` with a scaled data gradient.

    Args:
        args, kwargs: As :class:`chainer.links.DepthwiseConvolution2D`; besides, ``policy``, see
            :class:`~chainerlp.links.ScaledLink`.
    """

    def forward(self, x):
        """Applies the layer; see :func:`~chainerlp.functions.scaled_depthwise_convolution_2d`."""
        if self.W.array is None:
            self._initialize_params(x.shape[1])
        return scaled_depthwise_convolution_2d(
            x, self.W, self.b, self.stride, self.pad, layer_scale=self.layer_scale
        )
