"""Bilinear link whose data gradients are scaled; beside ``chainer.links.Bilinear``."""

from chainerlp.functions import scaled_bilinear
from chainerlp.links.scaled_link import ScaledLink

from chainer import links


class ScaledBilinear(ScaledLink, links.Bilinear):
    """:class:`chainer.links.Bilinear` with scaled data gradients, one scale for each input.

    Unlike Chainer's link it takes float16.

    Args:
        args, kwargs: As :class:`chainer.links.Bilinear`; besides, ``policy``, see
            :class:`~chainerlp.links.ScaledLink`.
    """

    def forward(self, e1, e2):
        """Applies the layer; see :func:`~chainerlp.functions.scaled_bilinear`."""
        linear = () if self.nobias else (self.V1, self.V2, self.b)
        return scaled_bilinear(e1, e2, self.W, *linear, layer_scale=self.layer_scale)
