"""What the scaled functions share: their arithmetic, and where a scale is applied."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any, Callable, Optional

from chainerlp import formats, policies
from chainerlp.gemm import factor
from chainerlp.gpu import on_gpu
from chainerlp.layer_scale import LayerScale
from chainerlp.rounding import from_float32, round_saturating, scale_and_round
from chainerlp.scaled_array import ScaledArray
from chainerlp.types import Array, Input, Scale
from chainerlp.window import Window, of_each_position

import chainer
import numpy
from chainer import backend
from chainer.backends import cuda
from numpy.typing import DTypeLike

# gW sums over the batch and all positions: with gy near u_max it overflows, with gy near u_min its
# small entries underflow. So it gets the scale that current scaling would give it (design, §1).
_WEIGHT_POLICY = policies.Amax()

next_serial = itertools.count().__next__


@dataclasses.dataclass(frozen=True)
class DataGradient:
    """A gradient that is to be scaled and rounded: not formed yet, and the factors it is made of.

    Attributes:
        gy (:ref:`ndarray`): The gradient of the output, as :func:`chainerlp.gemm.factor` has it.
        W (:ref:`ndarray`): The weight, likewise, with the outputs on its first axis.
        terms (int): K, how many products are summed into an element of gx.
        product (callable): Forms gx from them in float32, times a ``scale`` (1 by default), rounded
            once to a ``dtype`` (float32 by default).
        window (~chainerlp.window.Window): Which positions of gy an element of gx sums over; or
            ``None``, where there are rows only.
    """

    gy: Array
    W: Array
    terms: int
    product: Callable
    window: Optional[Window] = None


def gradient_to_cast(gy):
    """Returns a float32 gradient that is rounded itself, as the :class:`DataGradient` gy · 1.

    Its one term is what makes the policies choose a scale for a cast: K = 1, E[W²] = 1.

    Args:
        gy (:ref:`ndarray`): The gradient, of shape (batch, out, ...).
    """
    ones = _ones(gy.shape[1] if gy.ndim > 1 else 1, backend.get_device_from_array(gy))

    def product(scale=1.0, dtype=numpy.float32):
        return scale_and_round(gy.copy(), scale, dtype)

    return DataGradient(gy, ones, 1, product, of_each_position(gy.shape[2:]))


@functools.cache
def _ones(size, device):
    with chainer.using_device(device):
        return device.xp.ones((size, 1), numpy.float32)


class ScaledFunction:
    """Mixed in before one of Chainer's function nodes.

    In float16, products are accumulated in float32 and rounded once (design, section 5). Under
    Chainer's own ``backward`` nothing is scaled. Under :func:`chainerlp.backward` the function
    chooses α and multiplies the float32 product gx by it before it is rounded. In float32 and
    float64 it is Chainer's function, and nothing is scaled.

    With a ``gradient_format``, gx is rounded to that format first, saturating, in float32 as well.

    With a ``compute_dtype``, a float32 function rounds what enters its products to that format: x
    and W, and, on the way back, α gy. Sums are float32, and α is divided out at once, so that all
    that is seen outside is float32 and true; by whatever backward pass. Only a pass that is itself
    to be differentiated is Chainer's.

    Args:
        layer_scale (LayerScale): What chooses α; ``None`` scales nothing.
        rounded_weights (dict): Of functions that share their weights, all of one pass: what has
            been rounded of these, by the input's number.

    Attributes:
        layer_scale (LayerScale): See above.
        serial (int): Functions are numbered in the order in which they were made.
        call (int): Which use of its layer this function is in the pass, from 0.
        scale (float or 0-d array): α of the last backward pass; of several data inputs the first
            one's.
        total_scale (float or 0-d array): What gx carried in it; likewise.
    """

    data_inputs: tuple[int, ...] = (0,)
    """tuple of int: The inputs whose gradients are scaled; each gets an α of its own."""

    n_retained = 2
    """int: How many of the inputs, from the first, the gradients are computed from."""

    n_factors = 2
    """int: How many of the inputs, from the first, enter products."""

    call = 0
    scale = 1.0
    total_scale = None
    _factors = None  # the inputs, rounded to a compute_dtype where they enter products
    _rounded_weights = None

    def __init__(
        self,
        *args: Any,
        layer_scale: Optional[LayerScale] = None,
        rounded_weights: Optional[dict[int, Array]] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.layer_scale = layer_scale
        self._rounded_weights = rounded_weights
        self.serial = next_serial()

    # A subclass has these three. Inputs are handed in as they are: most products need some only.

    def output(self, inputs: tuple[Array, ...], dtype: DTypeLike) -> Array:
        """Returns y, made in float32 and rounded once."""
        raise NotImplementedError

    def data_gradient(self, index: int, inputs: tuple[Array, ...], gy: Array) -> DataGradient:
        """Returns the :class:`DataGradient` of one of the ``data_inputs``."""
        raise NotImplementedError

    def parameter_gradient(
        self,
        index: int,
        inputs: tuple[Array, ...],
        gy: Array,
        scale: Scale = 1.0,
        dtype: DTypeLike = numpy.float32,
    ) -> Array:
        """Returns the gradient of one of the other inputs, times a scale and rounded once."""
        raise NotImplementedError

    def forward(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Computes y; see the class."""
        dtype = inputs[0].dtype
        if self._has_compute_dtype(inputs):
            self._factors = inputs = self._rounded(inputs)
        elif dtype != numpy.float16 or not self._is_plain():
            return super().forward(inputs)
        self._config_use_ideep = chainer.config.use_ideep  # as Chainer's own forward notes it
        self.retain_inputs(tuple(range(min(self.n_retained, len(inputs)))))
        return (self.output(inputs, dtype),)

    def backward(
        self, indexes: tuple[int, ...], grad_outputs: tuple[chainer.Variable, ...]
    ) -> Sequence[Optional[chainer.Variable]]:
        """Computes the gradients as Chainer's function does; see the class."""
        self.scale, self.total_scale = 1.0, None
        is_own = self._is_half() or self.computes_in or self.gradient_format
        if chainer.config.enable_backprop or not is_own:
            return super().backward(indexes, grad_outputs)
        gy = ScaledArray(grad_outputs[0].array)
        if self.computes_in:
            gradients = self._gradients_of_factors(indexes, gy, self.layer_scale.anew(), 1.0)
            self.total_scale = None  # what gy carries is not known
        else:
            gradients = self._half_gradients(indexes, gy, None, 1.0)
        return [chainer.as_variable(gradient.array) for gradient in gradients]

    def backward_scaled(
        self, indexes: tuple[int, ...], gy: ScaledArray, backoff: float = 1.0
    ) -> list[Optional[ScaledArray]]:
        """Computes the gradients, those of the data multiplied by α.

        Args:
            indexes (tuple of int): The inputs whose gradients are wanted.
            gy (ScaledArray): The gradient of y.
            backoff (float): See :meth:`chainerlp.policies.Policy.scale`.

        Returns:
            list of ScaledArray: A gradient (or ``None``) for each index.
        """
        self.scale, self.total_scale = 1.0, gy.scale
        if self.computes_in:
            return self._gradients_of_factors(indexes, gy, self.layer_scale, backoff)
        if self._is_half() or self._has_half_weight() or self.gradient_format:
            return self._half_gradients(indexes, gy, self.layer_scale, backoff)
        gradients = super().backward(indexes, (chainer.as_variable(gy.array),))
        if len(gradients) != len(indexes):  # there is one for each input
            gradients = [gradients[i] for i in indexes]
        return [None if g is None else ScaledArray(g.array, gy.scale) for g in gradients]

    @property
    def gradient_format(self) -> Optional[formats.Format]:
        """Format: What gx is rounded to before it is stored in its dtype; or ``None``."""
        name = None if self.layer_scale is None else self.layer_scale.gradient_format
        return None if name is None or not self._is_plain() else formats.get(name)

    @property
    def computes_in(self) -> Optional[formats.Format]:
        """Format: What x, W and α gy of this float32 function were rounded to; or ``None``."""
        return None if self._factors is None else formats.get(self.layer_scale.compute_dtype)

    def _has_compute_dtype(self, inputs):
        return (
            self.layer_scale is not None
            and self.layer_scale.compute_dtype is not None
            and all(array.dtype == numpy.float32 for array in inputs)
            and self._is_plain()
        )

    def _rounded(self, inputs):
        """Returns the inputs, those that enter products rounded and counted where saturated."""
        format, layer_scale = formats.get(self.layer_scale.compute_dtype), self.layer_scale
        shared = {} if self._rounded_weights is None else self._rounded_weights
        rounded = [shared.get(index, array) for index, array in enumerate(inputs)]
        for index in range(min(self.n_factors, len(inputs))):
            if index not in shared:
                rounded[index], layer_scale.saturated = round_saturating(
                    inputs[index], format, saturated=layer_scale.saturated
                )
                if index not in self.data_inputs:
                    shared[index] = rounded[index]
        return tuple(rounded)

    def _half_gradients(self, indexes, gy, layer_scale, backoff):
        """Forms the gradients of some inputs, and scales them if there is a ``layer_scale``."""
        inputs = [v.array for v in self.get_retained_inputs()]
        gy = ScaledArray(factor(gy.array), gy.scale)
        return [self._half_gradient(index, inputs, gy, layer_scale, backoff) for index in indexes]

    def _half_gradient(self, index, inputs, gy, layer_scale, backoff):
        """Forms the gradient of one input, chooses its scale, applies it, and rounds once."""
        dtype = self.inputs[index].dtype
        is_half = dtype == numpy.float16
        format, product, scale, total = None, None, 1.0, gy.scale
        if index in self.data_inputs:
            gradient, format = self.data_gradient(index, inputs, gy.array), self.gradient_format
            form = gradient.product
            is_scaled = layer_scale is not None and (is_half or format is not None)
            if format is not None or (is_scaled and layer_scale.policy.needs_product):
                product = form()
            if is_scaled:
                scale, total = self._choose(
                    index, gradient, product, gy.scale, layer_scale, backoff
                )
        else:
            form = functools.partial(self.parameter_gradient, index, inputs, gy.array)
            if layer_scale is not None and layer_scale.scale_weights and is_half:
                product = form()
                scale, total = _WEIGHT_POLICY.scale_and_total(
                    product, None, gy.scale, product=product
                )
        if format is not None:
            _check_range(format, dtype, self.label)
            array = from_float32(round_saturating(product, format, scale)[0], dtype)
        elif product is None:
            array = form(scale, dtype)
        else:
            array = scale_and_round(product, scale, dtype)
        return ScaledArray(array, total)

    def _choose(self, index, gradient, product, total_scale, layer_scale, backoff, is_cast=False):
        scale, total = layer_scale.choose(
            self.call,
            gradient.gy,
            gradient.W,
            total_scale,
            terms=gradient.terms,
            product=product,
            window=gradient.window,
            backoff=backoff,
            data_input=self.data_inputs.index(index),
            is_cast=is_cast,
        )
        if index == self.data_inputs[0]:
            self.scale, self.total_scale = scale, total
        return scale, total

    def _gradients_of_factors(self, indexes, gy, layer_scale, backoff):
        """Scales and rounds gy, and forms the gradients in float32, α divided out."""
        cast = gradient_to_cast(gy.array)
        scale, _ = self._choose(
            self.data_inputs[0], cast, gy.array, gy.scale, layer_scale, backoff, is_cast=True
        )
        is_there = on_gpu(scale) and gy.array.size > 0
        inverse = cuda.cupy.empty((), numpy.float32) if is_there else 1 / scale
        rounded, self.layer_scale.saturated = round_saturating(
            gy.array, self.computes_in, scale, self.layer_scale.saturated, inverse
        )
        rounded = factor(rounded)
        gradients = []
        for index in indexes:
            if index in self.data_inputs:
                array = self.data_gradient(index, self._factors, rounded).product(inverse)
            elif index < self.n_factors:
                array = self.parameter_gradient(index, self._factors, rounded, inverse)
            else:  # of a bias: a sum, no product
                array = self.parameter_gradient(index, self.inputs, gy.array)
            gradients.append(ScaledArray(array, gy.scale))
        return gradients

    def _is_plain(self):
        return True

    def _is_half(self):
        return self.inputs[0].dtype == numpy.float16 and self._is_plain()

    def _has_half_weight(self):
        # x may be float32: gW is float16 all the same.
        dtypes = [x.dtype for x in self.inputs[:2]]
        return dtypes == [numpy.float32, numpy.float16] and self._is_plain()


class ScaledLayerFunction(ScaledFunction):
    """A :class:`ScaledFunction` with the inputs x, W and, optionally, b."""

    def geometry(self) -> Any:
        """Returns what the function computes, one of the classes of :mod:`chainerlp.geometry`."""
        raise NotImplementedError

    def prepare(self, x: Array, W: Array) -> None:
        """Does what Chainer's forward does to the function, besides computing y."""

    def apply_to(self, x: Input, W: Input, b: Optional[Input]) -> chainer.Variable:
        """Returns the variable y; ``b`` may be ``None``."""
        (y,) = self.apply((x, W) if b is None else (x, W, b))
        return y

    def output(self, inputs: tuple[Array, ...], dtype: DTypeLike) -> Array:
        """Returns y, made in float32 and rounded once."""
        x, W = inputs[:2]
        self.prepare(x, W)
        factors = factor(x), factor(W)
        if len(inputs) == 2:
            return self.geometry().output(*factors, dtype=dtype)
        y, b = self.geometry().output(*factors), inputs[2]
        b = b.reshape(b.shape + (1,) * (y.ndim - 1 - b.ndim))
        if on_gpu(y) and dtype != y.dtype:  # in one launch; the sum is float32
            return cuda.cupy.add(y, b, out=cuda.cupy.empty(y.shape, dtype), casting='unsafe')
        y += b
        return from_float32(y, dtype)

    def data_gradient(self, index: int, inputs: tuple[Array, ...], gy: Array) -> DataGradient:
        """Returns the :class:`DataGradient` of x."""
        x, W = inputs[0], factor(inputs[1])
        geometry = self.geometry()

        def product(scale=1.0, dtype=numpy.float32):
            return geometry.data_gradient(gy, W, x.shape[2:], scale, dtype)

        by_output, terms = geometry.weight_by_output(W), geometry.terms(W.shape)
        window = geometry.window(gy.shape, W.shape, x.shape[2:])
        return DataGradient(gy, by_output, terms, product, window)

    def parameter_gradient(
        self,
        index: int,
        inputs: tuple[Array, ...],
        gy: Array,
        scale: Scale = 1.0,
        dtype: DTypeLike = numpy.float32,
    ) -> Array:
        """Returns gW or gb."""
        if index == 1:
            x, W = inputs[:2]
            return self.geometry().weight_gradient(factor(x), gy, W.shape, scale, dtype)
        b_ndim = len(self.inputs[2].shape)
        gb = gy.sum(axis=(0,) + tuple(range(1 + b_ndim, gy.ndim)), dtype=numpy.float32)
        return scale_and_round(gb, scale, dtype)


def _check_range(format, dtype, label):
    if format.largest > numpy.finfo(dtype).max:
        raise ValueError(
            f'{label}: gradient_format {format.name!r} has a wider range than the {dtype} in which'
            ' gradients are stored; give it to a float32 model'
        )
