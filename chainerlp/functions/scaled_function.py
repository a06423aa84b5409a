"""What the scaled functions share: their arithmetic in float16, and the choice of the scale."""

import dataclasses
import itertools

from chainerlp import gemm, kernels, rounding
from chainerlp.functions.layer_scale import WEIGHT_POLICY

import chainer
import numpy

_serial_numbers = itertools.count()


@dataclasses.dataclass(frozen=True)
class DataGradient:
    """A data gradient before it is scaled and rounded, and the factors that it is made of.

    Attributes:
        product (:ref:`ndarray`): gx, in float32.
        gy (:ref:`ndarray`): The gradient of the output, as :func:`chainerlp.gemm.factor` has it.
        W (:ref:`ndarray`): The weight, likewise, with the outputs on its first axis.
        terms (int): How many products are summed into an element of gx.
    """

    product: object
    gy: object
    W: object
    terms: int


class ScaledFunction:
    """Mixed in before one of Chainer's function nodes.

    In float16, products are accumulated in float32 and rounded once (design, section 5). Under
    Chainer's own ``backward`` nothing is scaled. Under :func:`chainerlp.backward` the function
    chooses α and multiplies the float32 product gx by it before it is rounded. In float32 and
    float64 it is Chainer's function, and nothing is scaled.

    Args:
        layer_scale (LayerScale): What chooses α; ``None`` scales nothing.

    Attributes:
        layer_scale (LayerScale): See above.
        call (int): Which use of its layer this function is in the pass, from 0.
        scale (float or 0-d array): α of the last backward pass; of several data inputs the first
            one's.
        total_scale (float or 0-d array): What gx carried in it; likewise.
        serial (int): Functions are numbered in the order in which they were made.
    """

    call = 0
    scale = 1.0
    total_scale = None

    data_inputs = (0,)
    """tuple of int: The inputs whose gradients are scaled; each gets an α of its own."""

    n_retained = 2
    """int: How many of the inputs, from the first, the gradients are computed from."""

    def __init__(self, *args, layer_scale=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.layer_scale = layer_scale
        self.serial = next(_serial_numbers)

    # What a scaled function adds to these: its products, all in float32. Inputs are handed in as
    # they are, since most products need some of them only.

    def half_output(self, inputs):
        """Returns y."""
        raise NotImplementedError

    def half_data_gradient(self, index, inputs, gy):
        """Returns the :class:`DataGradient` of one of the ``data_inputs``."""
        raise NotImplementedError

    def half_parameter_gradient(self, index, inputs, gy):
        """Returns the gradient of one of the other inputs."""
        raise NotImplementedError

    def forward(self, inputs):
        """Computes y; see the class."""
        x = inputs[0]
        if x.dtype != numpy.float16 or not self._is_plain():
            return super().forward(inputs)
        self._config_use_ideep = chainer.config.use_ideep  # as Chainer's own forward notes it
        self.retain_inputs(tuple(range(min(self.n_retained, len(inputs)))))
        return (rounding.from_float32(self.half_output(inputs), x.dtype),)

    def backward(self, indexes, grad_outputs):
        """Computes the gradients as Chainer's function does; see the class."""
        self.scale, self.total_scale = 1.0, None
        if chainer.config.enable_backprop or not self._is_half():
            return super().backward(indexes, grad_outputs)
        return [gradient for gradient, _ in self._half_gradients(indexes, grad_outputs[0].array)]

    def backward_scaled(self, indexes, grad_outputs, total_scale, backoff=1.0):
        """Computes the gradients, those of the data multiplied by α.

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
            gradients = super().backward(indexes, grad_outputs)
            if len(gradients) != len(indexes):  # there is one for each input
                gradients = [gradients[i] for i in indexes]
            return [(g, total_scale) for g in gradients]
        gy = grad_outputs[0].array
        return self._half_gradients(indexes, gy, self.layer_scale, total_scale, backoff)

    def _is_plain(self):
        return True

    def _is_half(self):
        return self.inputs[0].dtype == numpy.float16 and self._is_plain()

    def _half_gradients(self, indexes, gy, layer_scale=None, total_scale=1.0, backoff=1.0):
        inputs = [v.array for v in self.get_retained_inputs()]
        gy = gemm.factor(gy)
        gradients = []
        for index in indexes:
            dtype = self.inputs[index].dtype
            scale = 1.0
            if index in self.data_inputs:
                gradient = self.half_data_gradient(index, inputs, gy)
                product = gradient.product
                if layer_scale is not None:
                    scale = self._choose(index, gradient, layer_scale, total_scale, backoff)
            else:
                product = self.half_parameter_gradient(index, inputs, gy)
                if layer_scale is not None and layer_scale.scale_weights and dtype == numpy.float16:
                    scale = WEIGHT_POLICY.scale(product, None, total_scale, product=product)
            gradients.append(_rounded(product, dtype, scale, total_scale))
        return gradients

    def _choose(self, index, gradient, layer_scale, total_scale, backoff):
        scale = layer_scale.choose(
            self.call,
            gradient.gy,
            gradient.W,
            total_scale,
            terms=gradient.terms,
            product=gradient.product,
            backoff=backoff,
            data_input=self.data_inputs.index(index),
        )
        if index == self.data_inputs[0]:
            self.scale, self.total_scale = scale, total_scale * scale
        return scale


class ScaledLayerFunction(ScaledFunction):
    """A :class:`ScaledFunction` with the inputs x, W and, optionally, b."""

    @staticmethod
    def geometry(function):
        """Returns what Chainer's function computes, one of the classes of ``products``."""
        raise NotImplementedError

    def prepare(self, x, W):
        """Does what Chainer's forward does to the function, besides computing y."""

    def half_output(self, inputs):
        """Returns y."""
        x, W = inputs[:2]
        self.prepare(x, W)
        y = self.geometry(self).output(gemm.factor(x), gemm.factor(W))
        if len(inputs) == 3:
            b = inputs[2]
            y += b.reshape(b.shape + (1,) * (y.ndim - 1 - b.ndim))
        return y

    def half_data_gradient(self, index, inputs, gy):
        """Returns gx."""
        x, W = inputs
        W = gemm.factor(W)
        geometry = self.geometry(self)
        gx = geometry.data_gradient(gy, W, x.shape[2:])
        return DataGradient(gx, gy, geometry.weight_by_output(W), geometry.terms(W.shape))

    def half_parameter_gradient(self, index, inputs, gy):
        """Returns gW or gb."""
        if index == 1:
            x, W = inputs
            return self.geometry(self).weight_gradient(gemm.factor(x), gy, W.shape)
        b_ndim = len(self.inputs[2].shape)
        return gy.sum(axis=(0,) + tuple(range(1 + b_ndim, gy.ndim)), dtype=numpy.float32)


def _rounded(product, dtype, scale, total_scale):
    if not (isinstance(scale, float) and scale == 1):
        total_scale = total_scale * scale
    return chainer.as_variable(kernels.scaled(product, scale, dtype)), total_scale
