"""Normalization of a feature map at each position, across its channels."""

import chainer
import numpy
from chainer import functions

# Under the root, so that the gradient is finite where all channels are 0.
_EPS = 1e-10


class Normalize(chainer.Link):
    """Divides by the L2 norm over the channels and multiplies by a learned scale a channel.

    Liu et al., ParseNet (arXiv 1506.04579), section 3.3; SSD has it on conv4_3, whose values are
    much larger than those of the other feature maps. It is computed in float32, whatever the dtype
    of the input: the sum of 512 squares overflows float16 from a root mean square of 11 on.

    Args:
        channels (int): Channels of the input.
        initial (float): What the scale begins with.
    """

    def __init__(self, channels, initial=20.0):
        super().__init__()
        with self.init_scope():
            # float32 in mixed16, like the scale of a batch normalization.
            dtype = chainer.get_dtype(map_mixed16=numpy.float32)
            self.scale = chainer.Parameter(chainer.initializers.Constant(initial, dtype), channels)

    def forward(self, x):
        """Normalizes a batch of feature maps (n, channels, h, w); the output has x's dtype."""
        h = functions.cast(x, 'float32')
        squares = functions.sum(h * h, axis=1, keepdims=True)
        norm = functions.sqrt(squares + _EPS)
        h = h / functions.broadcast_to(norm, h.shape)
        h = functions.scale(h, functions.cast(self.scale, 'float32'), axis=1)
        return functions.cast(h, x.dtype)
