"""Linear function whose data gradient is scaled; beside ``chainer.functions.linear``."""

from chainerlp import geometry
from chainerlp.functions.scaled_function import ScaledLayerFunction

from chainer import utils
from chainer.functions.connection.linear import LinearFunction


class ScaledLinearFunction(ScaledLayerFunction, LinearFunction):
    """:class:`ScaledLayerFunction` of y = x Wᵀ + b."""

    @staticmethod
    def geometry(function):
        """Returns the :class:`~chainerlp.geometry.Linear` of one of Chainer's functions."""
        return geometry.Linear()


def scaled_linear(x, W, b=None, n_batch_axes=1, layer_scale=None, rounded_weights=None):
    """Linear function whose data gradient is scaled.

    Args:
        x (:class:`~chainer.Variable` or :ref:`ndarray`): Input of shape (s_1, ..., s_n). Its first
            ``n_batch_axes`` axes are the batch's, the others are taken as one.
        W (:class:`~chainer.Variable` or :ref:`ndarray`): Weight of shape (out, in).
        b (:class:`~chainer.Variable` or :ref:`ndarray`): Bias of shape (out,), or ``None``.
        n_batch_axes (int): Number of batch axes, 1 or more.
        layer_scale (LayerScale): What chooses the scale; ``None`` scales nothing.
        rounded_weights (dict): See
            :class:`~chainerlp.functions.scaled_function.ScaledFunction`.

    Returns:
        ~chainer.Variable: Output of shape (s_1, ..., s_n_batch_axes, out).

    Raises:
        ValueError: If ``n_batch_axes`` is not positive.
    """
    if n_batch_axes < 1:
        raise ValueError(f'n_batch_axes must be 1 or more, not {n_batch_axes}')
    batch_shape = x.shape[:n_batch_axes]
    if x.ndim != 2 or n_batch_axes != 1:
        x = x.reshape(utils.size_of_shape(batch_shape), utils.size_of_shape(x.shape[n_batch_axes:]))
    inputs = (x, W) if b is None else (x, W, b)
    (y,) = ScaledLinearFunction(layer_scale=layer_scale, rounded_weights=rounded_weights).apply(
        inputs
    )
    return y if n_batch_axes == 1 else y.reshape(batch_shape + (-1,))
