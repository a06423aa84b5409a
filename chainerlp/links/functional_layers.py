"""Layers called as functions, such as ``F.linear`` with a parameter: which scale is theirs."""

import contextlib
import itertools
import weakref
from collections.abc import Iterator
from typing import Callable, Optional

from chainerlp import functions
from chainerlp.layer_scale import LayerScale
from chainerlp.links.conversion import belongs_to_restored, is_restored
from chainerlp.links.scaled_links import ScaledLink
from chainerlp.policies import Policy

import chainer


class FunctionalLayers:
    """Gives the functions of layers that no scaled link has called a :class:`LayerScale`.

    That of the scaled link that holds the weight, if one does (its class calls ``F.linear`` by
    itself); none, if :func:`~chainerlp.restore` has turned the link back, be it another model's;
    otherwise one of its own for each parameter that is the weight (tied embeddings), or that the
    weight is made of (spectral and weight normalization).

    Args:
        model (~chainer.Link): The model.
        policy (~chainerlp.policies.Policy): Chooses the scales of those of its own.
        scale_weights (bool): As for :func:`~chainerlp.convert`.
        compute_dtype (str): Likewise, as is ``gradient_format``.
    """

    def __init__(
        self,
        model: chainer.Link,
        policy: Policy,
        scale_weights: Optional[bool],
        compute_dtype: Optional[str] = None,
        gradient_format: Optional[str] = None,
    ) -> None:
        self._model = model
        self._settings = LayerScale(policy, scale_weights, compute_dtype, gradient_format)
        self._own = {}  # by the parameter's path, or 'derived/0' and so on

    @contextlib.contextmanager
    def in_forward(self) -> Iterator[None]:
        """Gives the layers in a forward pass their ``compute_dtype``, if there is one."""
        if self._settings.compute_dtype is None:
            yield
            return
        with _GivesComputeDtype(self._finder_by_array()):
            yield

    def _finder_by_array(self):
        """Returns what finds the scale of a layer by its weight's array, in one forward pass.

        It finds none if that is no parameter's. A weight that is made of a parameter is an array
        like any other, but for a transposed one and its like.
        """
        held = {}  # by the array's id, with the array, so that the id stays its own

        def find(W):
            if not held or any(p.array is None for p in self._model.params()):
                held.update({id(p.array): (p.array, *of) for p, *of in self._held_params()})
            for array in (W, getattr(W, 'base', None)):
                known, path, link = held.get(id(array), (None, None, None))
                if known is not None and known is array and not is_restored(link):
                    own = isinstance(link, ScaledLink)
                    return link.layer_scale if own else self._own_scale(path)
            return None

        return find

    def _held_params(self):
        """Yields each initialized parameter of the model, its path, and the link that holds it."""
        links = dict(self._model.namedlinks())
        for path, param in self._model.namedparams(include_uninit=False):
            yield param, path, links[path.rpartition('/')[0] or '/']

    def of_pass(self) -> Callable[[chainer.FunctionNode], Optional[LayerScale]]:
        """Returns what finds the scales in one backward pass; it is of no use after it.

        Returns:
            callable: Takes a function that :func:`~chainerlp.functions.is_plain_layer`, and returns
            its LayerScale; ``None`` if it is not to be scaled.
        """
        holders = {param.node: (path, link) for param, path, link in self._held_params()}
        # By their class: deep copies of them are not marked.
        restored_links = filter(is_restored, self._model.links())
        restored = {param.node for link in restored_links for param in link.params()}
        turns = itertools.count()
        found = weakref.WeakKeyDictionary()  # what is recomputed need not outlive its own part

        def find(function):
            W = _origin(function.inputs[1], holders)
            if W is None:  # made of no parameter of the model: known by its turn in the pass
                return self._own_scale(f'derived/{next(turns)}')
            path, link = holders.get(W, (None, None))
            if isinstance(link, ScaledLink):
                return link.layer_scale
            if W in restored or belongs_to_restored(W):
                return None
            return self._own_scale(path)

        def layer_scale(function):
            if function not in found:
                found[function] = find(function)
            return found[function]

        return layer_scale

    def namedscales(self) -> Iterator[tuple[str, LayerScale]]:
        """Yields what names each of the scales of its own, and the scale."""
        yield from self._own.items()

    def _own_scale(self, key):
        if key not in self._own:
            self._own[key] = self._settings.anew()
        return self._own[key]

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Saves or loads the scales of those of its own; a snapshot need not have any."""
        if not isinstance(serializer, chainer.Deserializer):
            for key, layer_scale in self._own.items():
                layer_scale.serialize(_at(serializer, key))
            return
        self._own = {}
        for path, _ in self._model.namedparams():
            self._load(serializer, path)
        turns = itertools.count()
        while self._load(serializer, f'derived/{next(turns)}'):
            pass

    def _load(self, serializer, key):
        """Loads one of the scales of its own; returns whether the snapshot has it."""
        try:
            has_it = _at(serializer, key)('held', None) is not None
        except (KeyError, ValueError):  # of npz, of HDF5
            has_it = False
        if has_it:
            self._own_scale(key).serialize(_at(serializer, key))
        return has_it


class _GivesComputeDtype(chainer.FunctionHook):
    """Function hook: only before its forward can one of Chainer's functions be given a dtype.

    Functions that a backward pass is made of, for a gradient penalty, are left as they are.
    """

    def __init__(self, layer_scale_of):
        self.name = f'GivesComputeDtype-{id(self)}'
        self._layer_scale_of = layer_scale_of
        self._backward_depth = 0

    def forward_preprocess(self, function, in_data):
        """Makes the function of a layer a scaled one."""
        if self._backward_depth == 0:
            functions.give_compute_dtype(function, in_data, self._layer_scale_of)

    def backward_preprocess(self, function, in_data, out_grad):
        """Notes that a backward pass is at work."""
        self._backward_depth += 1

    def backward_postprocess(self, function, in_data, out_grad):
        """Notes that it is done with this function."""
        self._backward_depth -= 1


def _at(serializer, key):
    # At once: in HDF5, nothing can be looked up in a group that does not exist.
    return serializer[f'functions/{key.lstrip("/")}']


def _origin(node, parameters):
    """Returns the parameter that a weight is or is made of: the nearest one; ``None`` if none is.

    Args:
        node (~chainer.variable.VariableNode): The weight.
        parameters (dict): Has the nodes of the model's parameters for keys. Those of restored links
            count, too.
    """
    nodes, seen = [node], set()
    for node in nodes:  # grows
        if node in parameters or belongs_to_restored(node):
            return node
        if node.creator_node is not None and node not in seen:
            seen.add(node)
            nodes.extend(node.creator_node.inputs)
    return None
