"""The function hook that looks at each layer's data gradient, on any trainer."""

from chainerlp import functions
from chainerlp.extensions.layer_paths import LayerPaths

import chainer


class Probe(chainer.FunctionHook):
    """Looks at the data gradients of a model's layers in one backward pass.

    It can be attached to converted and unconverted links alike, and changes nothing.

    Args:
        models (dict of str to ~chainer.Link): The models by name, see
            :class:`~chainerlp.extensions.layer_paths.LayerPaths`.
        look (callable): Called with each layer's function, its inputs, the gradient of its output
            as it is stored, and the name of its model; what it returns is kept.
        is_wanted (callable): Asked once, at the first layer of the pass: whether to look at it.
        matches (callable): Which layers to look at: takes a path, returns a bool.
    """

    def __init__(self, models, look, is_wanted=lambda: True, matches=lambda path: True):
        self.name = f'Probe-{id(self)}'
        self._decision = None
        self._models = models
        self._look = look
        self._is_wanted = is_wanted
        self._matches = matches
        self._paths = None
        self._seen = []

    def backward_postprocess(self, function, in_data, out_grad):
        """Looks at a layer; called by the backward pass."""
        if not functions.has_data_gradient(function) or out_grad[0] is None:
            return
        if self._decision is None:
            self._decision = self._is_wanted()
        if not self._decision:
            return
        if self._paths is None:  # not earlier: parameters may be initialized in the forward pass
            self._paths = LayerPaths(self._models)
        path, name = self._paths.find(function, in_data)
        if self._matches(path):
            self._seen.append((function, path, self._look(function, in_data, out_grad[0], name)))

    def seen(self):
        """Returns what was seen, the layers from input to output.

        Returns:
            list of tuple: Path, number of the use of the layer in the pass, from 0, and what
            ``look`` returned.
        """
        # What a layer sees last in the backward pass was used first in the forward pass.
        in_order = sorted(reversed(self._seen), key=lambda entry: entry[0].rank)
        calls = _calls(in_order)
        return [(path, call, value) for (_, path, value), call in zip(in_order, calls)]


def _calls(in_order):
    """Numbers the uses of each layer, as the backward pass does where a function tells its turn."""
    uses = {}
    for position, (function, path, _) in enumerate(in_order):
        uses.setdefault(path, []).append((getattr(function, 'serial', position), position))
    calls = [0] * len(in_order)
    for turns in uses.values():
        for call, (_, position) in enumerate(sorted(turns)):
            calls[position] = call
    return calls
