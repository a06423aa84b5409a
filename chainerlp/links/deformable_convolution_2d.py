"""Link of a deformable convolution with given offsets, whose data gradient is scaled.

It is a child of ``chainer.links.DeformableConvolution2D``, beside the convolution that finds the
offsets.
"""

from chainerlp.functions import scaled_deformable_convolution_2d_sampler
from chainerlp.links.scaled_link import ScaledLink

from chainer.links.connection.deformable_convolution_2d import DeformableConvolution2DSampler


class ScaledDeformableConvolution2DSampler(ScaledLink, DeformableConvolution2DSampler):
    """Chainer's ``DeformableConvolution2DSampler`` with a scaled data gradient.

    Args:
        args, kwargs: As Chainer's; besides, ``policy``, see :class:`~chainerlp.links.ScaledLink`.
    """

    def forward(self, x, offset):
        """Applies the layer; see the function of the same name in ``chainerlp.functions``."""
        if self.W.array is None:
            self._initialize_params(x.shape[1])
        return scaled_deformable_convolution_2d_sampler(
            x, offset, self.W, self.b, self.stride, self.pad, layer_scale=self.layer_scale
        )
