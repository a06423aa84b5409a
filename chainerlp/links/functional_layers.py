"""Layers called as functions, such as ``F.linear`` with a parameter: which scale is theirs."""

from chainerlp.layer_scale import LayerScale
from chainerlp.links.conversion import is_restored
from chainerlp.links.scaled_links import ScaledLink


class FunctionalLayers:
    """Gives the functions of layers that no scaled link has called a :class:`LayerScale`.

    That of the scaled link that holds the weight, if one does (its class calls ``F.linear`` by
    itself); none, if :func:`~chainerlp.restore` has turned the link back; otherwise one of its own
    for each parameter that is the weight (tied embeddings), or that the weight is made of (spectral
    and weight normalization). Those are not in snapshots.

    Args:
        model (~chainer.Link): The model.
        policy (~chainerlp.policies.Policy): Chooses the scales of those of its own.
        scale_weights (bool): As for :func:`~chainerlp.convert`.
    """

    def __init__(self, model, policy, scale_weights):
        self._model = model
        self._policy = policy
        self._scale_weights = scale_weights
        self._own = {}
        self._links = {}
        self._seen = {}
        self._derived = 0

    def start_pass(self):
        """Prepares for a backward pass."""
        self._seen = {}
        self._derived = 0
        by_path = dict(self._model.namedlinks())
        self._links = {
            id(param.node): by_path[path.rpartition('/')[0] or '/']
            for path, param in self._model.namedparams(include_uninit=False)
        }

    def layer_scale(self, function):
        """Returns the LayerScale of a function; ``None`` if it is not to be scaled.

        Args:
            function (~chainer.FunctionNode): A function that
                :func:`~chainerlp.functions.is_plain_layer`.
        """
        if function not in self._seen:
            self._seen[function] = self._find(function)
        return self._seen[function]

    def _find(self, function):
        W = _origin(function.inputs[1], self._links)
        link = self._links.get(id(W))
        if isinstance(link, ScaledLink):
            return link.layer_scale
        if link is not None and is_restored(link):
            return None
        key = id(W)
        if W is None:  # made of no parameter of the model: known by its turn in the pass
            key, self._derived = self._derived, self._derived + 1
        if key not in self._own:
            self._own[key] = LayerScale(self._policy, self._scale_weights)
        return self._own[key]

    def forget(self):
        """Drops the scales that are kept."""
        for layer_scale in self._own.values():
            layer_scale.forget()


def _origin(node, parameters):
    """Returns the parameter that a weight is or is made of: the nearest one; ``None`` if none is.

    Args:
        node (~chainer.variable.VariableNode): The weight.
        parameters (dict): Has the ids of the parameters' nodes for keys.
    """
    nodes, seen = [node], set()
    for node in nodes:  # grows
        if id(node) in parameters:
            return node
        if node.creator_node is not None and id(node) not in seen:
            seen.add(id(node))
            nodes.extend(node.creator_node.inputs)
    return None
