"""Linear link whose data gradient is scaled; beside ``chainer.links.Linear``."""

from chainerlp.functions import scaled_linear
from chainerlp.links.scaled_link import ScaledLink

from chainer import links, utils


class ScaledLinear(ScaledLink, links.Linear):
    """:class:`chainer.links.Linear` with a scaled data gradient.

    Args:
        args, kwargs: As :class:`chainer.links.Linear`; besides, ``policy``, see
            :class:`~chainerlp.links.ScaledLink`.
    """

    def forward(self, x, n_batch_axes=1):
        """Applies the layer; see :func:`~chainerlp.functions.scaled_linear`."""
        if self.W.array is None:
            self._initialize_params(utils.size_of_shape(x.shape[n_batch_axes:]))
        return scaled_linear(x, self.W, self.b, n_batch_axes, layer_scale=self.layer_scale)
