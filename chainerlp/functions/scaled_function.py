"""What the scaled functions share: their arithmetic in float16, and the choice of the scale."""

import itertools

from chainerlp import rounding
from chainerlp.functions.layer_scale import WEIGHT_POLICY

import chainer
import numpy

_serial_numbers = itertools.count()


class ScaledFunction:
    """Mixed in before one of Chainer's function nodes with the inputs x, W and, optionally, b.

    In float16, products are accumulated in float32 and rounded once (design, section 5). Under
    Chainer's own ``backward`` nothing is scaled. Under :func:`chainerlp.backward` the function
    chooses α and multiplies the float32 product gx by it before it is rounded. In float32 and
    float64 it is Chainer's function, and nothing is scaled.

    Args:
        layer_scale (LayerScale): What chooses α; ``None`` scales nothing.

    Attributes:
        layer_scale (LayerScale): See above.
        call (int): Which use of its layer this function is in the pass, from 0.
        scale (float or 0-d array): α of the last backward pass.
        total_scale (float or 0-d array): What gx carried in it.
        serial (int): Functions are numbered in the order in which they were made.
    """

    call = 0
    scale = 1.0
    total_scale = None

    def __init__(self, *args, layer_scale=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.layer_scale = layer_scale
        self.serial = next(_serial_numbers)

    # What a scaled function adds to these: the three products, all in float32.

    def output(self, x, W):
        """Returns y without the bias."""
        raise NotImplementedError

    def data_gradient(self, gy, W, x_shape):
        """Returns gx."""
        raise NotImplementedError

    def weight_gradient(self, x, gy, W_shape):
        """Returns gW."""
        raise NotImplementedError

    def terms(self, W_shape):
        """Returns how many products are summed into an element of gx."""
        raise NotImplementedError

    bias_shape = None
    """tuple of int: The shape with which b broadcasts to y."""

    def forward(self, inputs):
        """Computes y; see the class."""
        x, W = inputs[:2]
        if x.dtype != numpy.float16 or not self._is_plain():
            return super().forward(inputs)
        self._config_use_ideep = chainer.config.use_ideep  # as Chainer's own forward notes it
        self.retain_inputs((0, 1))
        y = self.output(rounding.to_float32(x), rounding.to_float32(W))
        if len(inputs) == 3:
            y += inputs[2].reshape(self.bias_shape)
        return (rounding.from_float32(y, x.dtype),)

    def backward(self, indexes, grad_outputs):
        """Computes the gradients as Chainer's function does; see the class."""
        self.scale, self.total_scale = 1.0, None
        if chainer.config.enable_backprop or not self._is_half():
            return super().backward(indexes, grad_outputs)
        return [gradient for gradient, _ in self._half_gradients(indexes, grad_outputs[0].array)]

    def backward_scaled(self, indexes, grad_outputs, total_scale, backoff=1.0):
        """Computes the gradients, the one of x multiplied by α.

        Args:
            indexes (tuple of int): The inputs whose gradients are wanted.
            grad_outputs (tuple of ~chainer.Variable): The gradient of y; carries ``total_scale``.
            total_scale (float or 0-d array): See above.
            backoff (float): See :meth:`chainerlp.policies.Adaptive.scale`.

        Returns:
            list of tuple: A gradient and the total scale that it carries, for each index.
        """
        self.scale, self.total_scale = 1.0, total_scale
        if not self._is_half():
            return [(g, total_scale) for g in super().backward(indexes, grad_outputs)]
        gy = grad_outputs[0].array
        return self._half_gradients(indexes, gy, self.layer_scale, total_scale, backoff)

    def _is_plain(self):
        return True

    def _is_half(self):
        return self.inputs[0].dtype == numpy.float16 and self._is_plain()

    def _half_gradients(self, indexes, gy, layer_scale=None, total_scale=1.0, backoff=1.0):
        x, W = (v.array for v in self.get_retained_inputs())
        gy = rounding.to_float32(gy)
        gradients = []
        if 0 in indexes:
            weight = rounding.to_float32(W)
            gx = self.data_gradient(gy, weight, x.shape)
            scale = 1.0
            if layer_scale is not None:
                terms = self.terms(W.shape)
                scale = layer_scale.choose(
                    self.call, gy, weight, total_scale, terms=terms, product=gx, backoff=backoff
                )
                self.scale, self.total_scale = scale, total_scale * scale
            gradients.append(_rounded(gx, x.dtype, scale, total_scale))
        scale_weights = layer_scale is not None and layer_scale.scale_weights
        if 1 in indexes:
            gW = self.weight_gradient(rounding.to_float32(x), gy, W.shape)
            gradients.append(_parameter_gradient(gW, W.dtype, total_scale, scale_weights))
        if 2 in indexes:
            axes = tuple(axis for axis, size in enumerate(self.bias_shape) if size == 1)
            gb = gy.sum(axis=axes)
            gradients.append(_parameter_gradient(gb, x.dtype, total_scale, scale_weights))
        return gradients


def _parameter_gradient(gradient, dtype, total_scale, scale_weights):
    scale = 1.0
    if scale_weights and dtype == numpy.float16:
        scale = WEIGHT_POLICY.scale(gradient, None, total_scale, product=gradient)
    return _rounded(gradient, dtype, scale, total_scale)


def _rounded(product, dtype, scale, total_scale):
    if not (isinstance(scale, float) and scale == 1):
        product *= scale
        total_scale = total_scale * scale
    return chainer.as_variable(rounding.from_float32(product, dtype)), total_scale
