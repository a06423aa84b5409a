"""The function hook that measures what each layer's gradient loses, on any trainer."""

import dataclasses

from chainerlp import formats, functions, kernels, links

import chainer
from chainer import backend


@dataclasses.dataclass
class Measurement:
    """What one use of one layer did to its data gradient in one backward pass.

    Attributes:
        layer (str): Path of the link in the model.
        call (int): Which use of the link in the pass, from 0.
        scale (float): α, by which the layer multiplied; 1 where nothing is scaled.
        total_scale (float): The scale that the stored gradient carried.
        underflow (float): Fraction of all elements of gx that are not zero in float32 and are zero
            in the format.
        underflow_unscaled (float): What the same product would have lost with a total scale of 1.
        overflow (float): Fraction of all elements that are finite in float32 and inf in the format.
        absmax (float): Largest magnitude of the stored gradient, in float32.
    """

    layer: str
    call: int
    scale: float
    total_scale: float
    underflow: float
    underflow_unscaled: float
    overflow: float
    absmax: float


class Probe(chainer.FunctionHook):
    """Measures the data gradients of linear and convolution functions in a backward pass.

    It forms the float32 product anew from what the function is given, so that it can be attached
    to converted and unconverted links alike, under any optimizer, and changes nothing.

    Args:
        optimizers (dict): The optimizers by name, whose targets tell the layers' paths and whose
            loss scales tell what gradients carry.
        is_wanted (callable): Asked once, at the first layer of the pass: whether to measure it.
        matches (callable): Which layers to measure: takes a path, returns a bool.
    """

    def __init__(self, optimizers, is_wanted=lambda: True, matches=lambda path: True):
        self.name = f'Probe-{id(self)}'
        self._optimizers = optimizers
        self._is_wanted = is_wanted
        self._matches = matches
        self._decision = None
        self._owners = None
        self._taken = []

    def backward_postprocess(self, function, in_data, out_grad):
        """Measures a layer; called by the backward pass."""
        if not functions.has_data_gradient(function) or out_grad[0] is None:
            return
        if self._decision is None:
            self._decision = self._is_wanted()
        if not self._decision:
            return
        if self._owners is None:
            self._owners = _owners(self._optimizers)
        path, optimizer = self._owner(function, in_data[1])
        if self._matches(path):
            self._taken.append(
                (function, path, *_measure(function, in_data, out_grad[0], optimizer))
            )

    def measurements(self):
        """Returns a list of :class:`Measurement`, the layers from input to output.

        The only place that waits for the device.
        """
        # What a layer sees last in the backward pass was used first in the forward pass.
        taken = sorted(reversed(self._taken), key=lambda entry: entry[0].rank)
        calls = {}
        rows = []
        for _, path, *values in taken:
            call = calls[path] = calls.get(path, -1) + 1
            rows.append(Measurement(path, call, *(float(value) for value in values)))
        return rows

    def _owner(self, function, W):
        layer_scale = getattr(function, 'layer_scale', None)
        for key in (id(layer_scale), id(W)):
            if key in self._owners:
                return self._owners[key]
        return function.label, None


def _owners(optimizers):
    """Maps what is met in a function (its layer's scale, its weight) to path and optimizer."""
    owners = {}
    for name, optimizer in optimizers.items():
        prefix = '' if len(optimizers) == 1 else f'/{name}'
        for path, link in optimizer.target.namedlinks():
            if isinstance(link, links.ScaledLink):
                owners.setdefault(id(link.layer_scale), (prefix + path, optimizer))
        for path, param in optimizer.target.namedparams(include_uninit=False):
            link_path = path.rpartition('/')[0] or '/'
            owners.setdefault(id(param.array), (prefix + link_path, optimizer))
    return owners


def _measure(function, in_data, gy, optimizer):
    format = formats.FLOAT16
    product = functions.data_gradient(function, in_data, gy)
    scale = getattr(function, 'scale', 1.0)
    total_scale = getattr(function, 'total_scale', None)
    if total_scale is None:  # plain backward, where only the loss is scaled
        total_scale = getattr(optimizer, '_loss_scale', None) or 1.0
    xp = backend.get_array_module(product)
    size = max(product.size, 1)
    unscaled, _ = kernels.count_losses(product / (total_scale / scale), format)
    product *= scale
    lost, overflowed = kernels.count_losses(product, format)
    absmax = kernels.largest_magnitude(product)
    return scale, total_scale, lost / size, unscaled / size, overflowed / size, xp.asarray(absmax)
