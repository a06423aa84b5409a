"""2-D deconvolution link whose data gradient is scaled.

Beside ``chainer.links.Deconvolution2D``.
"""

from chainerlp.functions import scaled_deconvolution_2d
from chainerlp.links.scaled_link import ScaledLink

from chainer import links


class ScaledDeconvolution2D(ScaledLink, links.Deconvolution2D):
    """:class:`chainer.links.Deconvolution2D` with a scaled data gradient.

    Args:
        args, kwargs: As :class:`chainer.links.Deconvolution2D`; besides, ``policy``, see
            :class:`~chainerlp.links.ScaledLink`.
    """

    def forward(self, x):
        """Applies the layer; see :func:`~chainerlp.functions.scaled_deconvolution_2d`."""
        if self.W.array is None:
            self._initialize_params(x.shape[1])
        return scaled_deconvolution_2d(
            x,
            self.W,
            self.b,
            self.stride,
            self.pad,
            self.outsize,
            dilate=self.dilate,
            groups=self.groups,
            layer_scale=self.layer_scale,
        )
