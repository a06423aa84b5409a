"""Conversion of a model in place: links change their class and nothing else."""

import functools
from typing import Callable, Optional, TypeVar

from chainerlp import policies
from chainerlp.layer_scale import LayerScale, check_formats
from chainerlp.links import scaled_links

import chainer

# A scaled link's last base is the link of Chainer's that it stands for.
_ORIGINAL_BY_SCALED = {
    kind: kind.__bases__[-1]
    for name, kind in vars(scaled_links).items()
    if name.startswith('Scaled') and issubclass(kind, chainer.Link)
}
_SCALED_BY_ORIGINAL = {
    original: scaled
    for scaled, original in _ORIGINAL_BY_SCALED.items()
    if original is not chainer.Link  # a layer of a stacked RNN: converted with its parent
}

LinkType = TypeVar('LinkType', bound=chainer.Link)

# What a link is called by.
_CALLS = ('__call__', 'forward', 'rnn')


def convert(
    link: LinkType,
    policy: policies.Policy,
    scale_weights: Optional[bool] = None,
    compute_dtype: Optional[str] = None,
    gradient_format: Optional[str] = None,
) -> LinkType:
    """Turns the layers of a model into scaled ones, in place.

    Layers are Chainer's links that multiply by a weight: linear, convolution, deconvolution and
    their kin, bilinear, the n-step RNNs; subclasses of them that a user wrote, whose methods stay
    in force; links that consist of such; and :class:`chainerlp.links.Cast`. Everything else passes
    scales through as it is.

    Parameters, paths, persistent values and so snapshots stay the same, initialized or not. What
    is scaled already gets the new policy. Under plain ``loss.backward()`` a converted link does
    what Chainer's own does: bit for bit in float32; in float16 with products accumulated in
    float32 and rounded once.

    With a ``compute_dtype``, a float32 layer rounds what enters its products: x, W, and α times the
    gradient of its output, where α is what the policy chooses for a cast, K = 1 and E[W²] = 1. It
    does so under ``loss.backward()`` as well. Sums are float32, α is divided out at once, and what
    is beyond the format's largest number becomes that number: nothing else of the model changes.

    Args:
        link (~chainer.Link): A link, with all that it holds.
        policy: One of :mod:`chainerlp.policies`.
        scale_weights (bool): Whether weight gradients get scales of their own; ``None`` leaves it
            to the policy.
        compute_dtype (str): ``'float16'``; or ``'bfloat16'``, ``'float8_e5m2'`` or
            ``'float8_e4m3'``, which are simulated. ``None`` leaves float32 layers as they are.
        gradient_format (str): One of these that every layer, of float16 or float32, rounds its data
            gradient to, saturating, before it is stored in its own dtype: what a training in that
            format would be like. The policy follows it. ``None`` rounds to the dtype.

    Returns:
        ~chainer.Link: ``link``.

    Raises:
        TypeError: If ``link`` is no link, or ``policy`` no policy.
        ValueError: If there is no such format, or both are given.
    """
    _check_link(link)
    policies.check(policy)
    check_formats(compute_dtype, gradient_format)
    for layer in link.links():
        scaled = _scaled_class(type(layer))
        if scaled is not None:
            layer.__class__ = scaled
        if isinstance(layer, scaled_links.ScaledNStepRNN):
            scaled_links.convert_layers(layer)  # links() comes to them next
        if isinstance(layer, scaled_links.ScaledLink):
            of_layer = layer.policy_for(policy)
            layer.layer_scale = LayerScale(of_layer, scale_weights, compute_dtype, gradient_format)
            _mark(layer, False)
    return link


def restore(link: LinkType) -> LinkType:
    """Turns the scaled links of a model back into what they were before, in place.

    Their layers are then scaled by nobody, not by the optimizer of another model either.

    Args:
        link (~chainer.Link): A link, with all that it holds.

    Returns:
        ~chainer.Link: ``link``.
    """
    _check_link(link)
    for layer in link.links():
        original = _original_class(type(layer))
        if original is not None:
            layer.__class__ = original
            vars(layer).pop('layer_scale', None)  # a stacked RNN has none, but its layers
        if is_restored(layer):
            _mark(layer, True)
    return link


def _scaled_class(kind):
    """Returns the scaled class for a link's class; ``None`` if it is to stay as it is."""
    if any(base in _ORIGINAL_BY_SCALED for base in kind.__mro__):
        return None
    base = next((base for base in kind.__mro__ if base in _SCALED_BY_ORIGINAL), None)
    if base is None:
        return None
    scaled = _SCALED_BY_ORIGINAL[base]
    return scaled if base is kind else _scaled_subclass(kind, scaled)


def _original_class(kind):
    if issubclass(kind, _ScaledSubclass):
        return kind.scaled_from[0]
    return _ORIGINAL_BY_SCALED.get(kind)


def original_name(link: chainer.Link) -> str:
    """Returns the name of a link's class before it was converted."""
    return (_original_class(type(link)) or type(link)).__name__


def is_restored(link):
    """Returns whether a link is of a class that is converted, and is not."""
    return _scaled_class(type(link)) is not None


def belongs_to_restored(node):
    """Returns whether a node is that of a parameter of a restored link, of whatever model.

    A deep copy of such a parameter is not known as one.

    Args:
        node (~chainer.variable.VariableNode): The node of any variable.
    """
    return getattr(node.get_variable_or_none(), '_is_restored', False)


def _mark(layer, as_restored):
    for param in layer.params():
        param._is_restored = as_restored


def overridden_call(link: chainer.Link) -> Optional[Callable]:
    """Returns the method of a user's class by which a converted link is called, or ``None``.

    Args:
        link (~chainer.Link): A link.
    """
    if not isinstance(link, _ScaledSubclass):
        return None
    original, counterpart = type(link).scaled_from
    chainers = _ORIGINAL_BY_SCALED[counterpart]
    for name in _CALLS:
        if getattr(original, name, None) is not getattr(chainers, name, None):
            return getattr(original, name)
    return None


def _check_link(link):
    if not isinstance(link, chainer.Link):
        raise TypeError(f'a chainer.Link is converted and restored, not {type(link).__name__}')


class _ScaledSubclass:
    """First base of a class that :func:`_scaled_subclass` makes: lets its instances be pickled.

    Such a class cannot be found by name, so the two that it is made from are pickled instead.
    """

    def __reduce_ex__(self, protocol):
        reduced = super().__reduce_ex__(max(protocol, 2))
        if isinstance(reduced, str):
            return reduced
        make, arguments, *rest = reduced
        if not arguments or arguments[0] is not type(self):  # the user's class sees to it
            return reduced
        return (_make, (make, *type(self).scaled_from, *arguments[1:]), *rest)


def _make(make, original, counterpart, *arguments):
    return make(_scaled_subclass(original, counterpart), *arguments)


@functools.cache
def _scaled_subclass(original, counterpart):
    """Returns the scaled class of a class that a user derived from one of Chainer's links.

    It is a subclass of the user's class, which comes first, so that what it overrides stays in
    force, and of the scaled counterpart of Chainer's link. ``scaled_from`` is the pair of both.
    """
    namespace = {
        '__doc__': f'{original.__name__} with a scaled data gradient.',
        '__module__': original.__module__,
        '__qualname__': f'Scaled{original.__qualname__}',
        'scaled_from': (original, counterpart),
    }
    bases = (_ScaledSubclass, original, counterpart)
    return type(f'Scaled{original.__name__}', bases, namespace)
