"""Local convolution link whose data gradient is scaled.

Beside ``chainer.links.LocalConvolution2D``.
"""

from chainerlp.functions import scaled_local_convolution_2d
from chainerlp.links.scaled_link import ScaledLink

from chainer import links


class ScaledLocalConvolution2D(ScaledLink, links.LocalConvolution2D):
    """:class:`chainer.links.LocalConvolution2D` with a scaled data gradient.

    Args:
        args, kwargs: As :class:`chainer.links.LocalConvolution2D`; besides, ``policy``, see
            :class:`~chainerlp.links.ScaledLink`.
    """

    def forward(self, x):
        """Applies the layer; see :func:`~chainerlp.functions.scaled_local_convolution_2d`."""
        if self.W.array is None:
            self._initialize_params(x.shape[1], x.shape[2:])
        return scaled_local_convolution_2d(
            x, self.W, self.b, self.stride, layer_scale=self.layer_scale
        )
