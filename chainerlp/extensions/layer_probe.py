"""The function hook that measures each layer's data gradient gx in the backward pass."""

import collections

from chainerlp import functions, links
from chainerlp.extensions.files import EXPONENTS
from chainerlp.statistics import (
    count_underflow_and_overflow,
    largest_magnitude,
    magnitude_histogram,
)

import chainer


class LayerProbe(chainer.FunctionHook):
    """Function hook that measures the data gradient of each layer, converted or not.

    Args:
        models (dict of str to ~chainer.Link): The models by name, see :func:`named_links`.
        measure (callable): Called with a layer's function, its inputs, the gradient of its output
            as it is stored, and the name of its model (``None`` if unknown). What it returns is
            kept for :meth:`take`.
        is_wanted (callable): Returns whether to measure; called before each function is looked at.
        matches (callable): Takes the path of a layer and returns whether to measure it.
    """

    def __init__(self, models, measure, is_wanted=lambda: True, matches=lambda path: True):
        self.name = f'LayerProbe-{id(self)}'
        self._models = models
        self._measure = measure
        self._is_wanted = is_wanted
        self._matches = matches
        self._layers = None
        self._measured = []

    def backward_postprocess(self, function, in_data, out_grad):
        """Measures a layer; called by the backward pass."""
        if not self._is_wanted() or out_grad[0] is None:
            return
        if not functions.rounds_gradient(function):
            return
        if self._layers is None:  # not earlier: parameters may be initialized in the forward pass
            self._layers = _layers(self._models)
        path, name = self._layer_of(function, in_data)
        if self._matches(path):
            measured = self._measure(function, in_data, out_grad[0], name)
            self._measured.append((function, path, measured))

    def take(self):
        """Returns what was measured since the last call, the layers from input to output.

        Returns:
            list of tuple: Path of the link, number of its use in the pass, from 0, and what
            ``measure`` returned.
        """
        # The use of a layer that comes last in the backward pass was the first in the forward pass.
        in_order = sorted(reversed(self._measured), key=lambda entry: entry[0].rank)
        self._layers, self._measured = None, []
        calls = _calls(in_order)
        return [(path, call, measured) for (_, path, measured), call in zip(in_order, calls)]

    def _layer_of(self, function, in_data):
        """Returns a layer's path and the name of its model, found by its scale or parameters."""
        for held in (getattr(function, 'layer_scale', None), *in_data[1:]):
            if id(held) in self._layers:
                return self._layers[id(held)]
        # A function that belongs to no link goes by its label.
        return function.label, next(iter(self._models)) if len(self._models) == 1 else None


def named_links(models):
    """Yields the links of models, each after its path and before the name of its model.

    Args:
        models (dict of str to ~chainer.Link): The models by name. If there are several, a path
            begins with the name of its model.
    """
    for name, model in models.items():
        prefix = '' if len(models) == 1 else f'/{name}'
        for path, link in model.namedlinks():
            yield prefix + path, link, name


def measure_layer(function, in_data, gy, loss_scale, with_histogram=False):
    """Measures what rounding loses of the gradient that a layer rounds.

    That is its data gradient gx, to float16: the float32 product is formed anew from what the
    function was given. Of a float32 layer with a ``compute_dtype`` it is gy, to that format. Does
    not wait for the device.

    Args:
        function (~chainer.FunctionNode): A function that rounds a gradient, after its backward.
        in_data (tuple of :ref:`ndarray`): Its inputs.
        gy (:ref:`ndarray`): The gradient of its output as it is stored.
        loss_scale (float): What gy carries, unless the function knows its own total scale.
        with_histogram (bool): Whether to count magnitudes.

    Returns:
        tuple: The columns of a :class:`~chainerlp.extensions.files.Row` from ``scale`` on, floats
        or 0-d arrays; and the :func:`~chainerlp.statistics.magnitude_histogram` of what is
        about to be rounded, or ``None``.
    """
    format = functions.rounded_to(function)
    product = functions.gradient_to_round(function, in_data, gy).product()
    scale = getattr(function, 'scale', 1.0)
    total_scale = getattr(function, 'total_scale', None)
    if total_scale is None:  # plain backward, where only the loss is scaled
        total_scale = loss_scale * scale
    size = max(product.size, 1)
    unscaled, _ = count_underflow_and_overflow(product / (total_scale / scale), format)
    product *= scale
    lost, overflowed = count_underflow_and_overflow(product, format)
    absmax = largest_magnitude(product)
    counts = None
    if with_histogram:
        counts = magnitude_histogram(product, EXPONENTS[0], EXPONENTS[-1])
    return (scale, total_scale, lost / size, unscaled / size, overflowed / size, absmax), counts


def _layers(models):
    """Maps ids of layer scales and parameters' arrays to the link's path and its model's name."""
    layers = {}
    for path, link, name in named_links(models):
        held = [getattr(link, own).array for own in sorted(link._params)]
        if isinstance(link, links.ScaledLink):
            held.append(link.layer_scale)
        for each in held:
            if each is not None:  # a parameter that is not initialized yet
                layers.setdefault(id(each), (path, name))
    return layers


def _calls(in_order):
    """Numbers the uses of each layer, in the order of the forward pass where functions know it."""
    turns = [getattr(entry[0], 'serial', position) for position, entry in enumerate(in_order)]
    calls = [0] * len(in_order)
    uses = collections.Counter()
    for position in sorted(range(len(in_order)), key=turns.__getitem__):
        path = in_order[position][1]
        calls[position] = uses[path]
        uses[path] += 1
    return calls
