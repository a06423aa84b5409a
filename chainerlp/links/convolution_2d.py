"""2-D convolution link whose data gradient is scaled; beside ``chainer.links.Convolution2D``."""

from chainerlp.functions import scaled_convolution_2d
from chainerlp.links.scaled_link import ScaledLink

import chainer
from chainer import links


class ScaledConvolution2D(ScaledLink, links.Convolution2D):
    """:class:`chainer.links.Convolution2D` with a scaled data gradient.

    Args:
        args, kwargs: As :class:`chainer.links.Convolution2D`; besides, ``policy``, see
            :class:`~chainerlp.links.ScaledLink`.
    """

    def forward(self, x):
        """Applies the layer; see :func:`~chainerlp.functions.scaled_convolution_2d`."""
        if self.cudnn_fast:
            return super().forward(x)
        x = chainer.as_variable(x)
        if self.W.array is None:
            self._initialize_params(x.shape[1])
        return scaled_convolution_2d(
            x,
            self.W,
            self.b,
            self.stride,
            self.pad,
            dilate=self.dilate,
            groups=self.groups,
            layer_scale=self.layer_scale,
        )
