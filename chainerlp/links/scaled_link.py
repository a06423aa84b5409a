"""What the scaled links share: Chainer's link, with something that chooses the layer's scale."""

from chainerlp import policies
from chainerlp.functions import LayerScale


class ScaledLink:
    """Mixed in before one of Chainer's links; adds no parameter and no persistent value.

    Args:
        policy: One of :mod:`chainerlp.policies`; the paper's by default.
            :func:`chainerlp.convert`, and so the optimizer's ``setup``, gives the link its own.

    Attributes:
        layer_scale (~chainerlp.functions.LayerScale): What chooses the scale.
    """

    def __init__(self, *args, policy=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.layer_scale = LayerScale(policies.Adaptive() if policy is None else policy)

    def copy(self, mode='share'):
        """Copies the link; the copy is a layer of its own and chooses scales of its own."""
        copied = super().copy(mode)
        copied.layer_scale = LayerScale(self.layer_scale.policy, self.layer_scale.scale_weights)
        return copied
