"""Which layer of a model a function of the backward pass belongs to."""

from chainerlp import links


class LayerPaths:
    """Finds the path of a function's layer, by what both hold: the layer's scale or a parameter.

    Args:
        models (dict of str to ~chainer.Link): The models by name. If there are several, a path
            begins with the name of its model.
    """

    def __init__(self, models):
        self._models = models
        self._found = {}
        for name, model in models.items():
            prefix = '' if len(models) == 1 else f'/{name}'
            for path, link in model.namedlinks():
                if isinstance(link, links.ScaledLink):
                    self._found.setdefault(id(link.layer_scale), (prefix + path, name))
            for path, param in model.namedparams(include_uninit=False):
                link_path = path.rpartition('/')[0] or '/'
                self._found.setdefault(id(param.array), (prefix + link_path, name))

    def find(self, function, in_data):
        """Returns the path of a function's layer, and the name of the model that it is in.

        Args:
            function (~chainer.FunctionNode): The function.
            in_data (tuple of :ref:`ndarray`): Its inputs; the first is not taken for a parameter.

        Returns:
            tuple of str: Path and name. Of a function that belongs to no link, its label; and the
            name of the only model, or ``None`` if there are several.
        """
        for held in (getattr(function, 'layer_scale', None), *in_data[1:]):
            if id(held) in self._found:
                return self._found[id(held)]
        return function.label, next(iter(self._models)) if len(self._models) == 1 else None
