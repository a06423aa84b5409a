"""Conversion of a model in place: links change their class and nothing else."""

from chainerlp.functions import LayerScale
from chainerlp.links.convolution_2d import ScaledConvolution2D
from chainerlp.links.linear import ScaledLinear
from chainerlp.links.scaled_link import ScaledLink

import chainer
from chainer import links

_SCALED_BY_ORIGINAL = {
    links.Linear: ScaledLinear,
    links.Convolution2D: ScaledConvolution2D,
}
_ORIGINAL_BY_SCALED = {scaled: original for original, scaled in _SCALED_BY_ORIGINAL.items()}


def convert(link, policy, scale_weights=None):
    """Turns the linear and convolution links of a model into scaled ones, in place.

    Parameters, paths, persistent values and so snapshots stay the same, initialized or not. What
    is scaled already gets the new policy. Under plain ``loss.backward()`` a converted link does
    what Chainer's own does: bit for bit in float32; in float16 with products accumulated in
    float32 and rounded once.

    Args:
        link (~chainer.Link): A link, with all that it holds.
        policy: One of :mod:`chainerlp.policies`.
        scale_weights (bool): Whether weight gradients get scales of their own; ``None`` leaves it
            to the policy.

    Returns:
        ~chainer.Link: ``link``.

    Raises:
        TypeError: If ``link`` is no link, or ``policy`` no policy.
    """
    _check_link(link)
    if isinstance(policy, type) or not callable(getattr(policy, 'scale', None)):
        raise TypeError(
            f'policy must be one of chainerlp.policies, such as Adaptive(), not {policy!r}'
        )
    for layer in link.links():
        scaled = _SCALED_BY_ORIGINAL.get(type(layer))
        if scaled is not None:
            layer.__class__ = scaled
        if isinstance(layer, ScaledLink):
            layer.layer_scale = LayerScale(policy, scale_weights)
    return link


def restore(link):
    """Turns the scaled links of a model back into Chainer's own, in place.

    Args:
        link (~chainer.Link): A link, with all that it holds.

    Returns:
        ~chainer.Link: ``link``.
    """
    _check_link(link)
    for layer in link.links():
        original = _ORIGINAL_BY_SCALED.get(type(layer))
        if original is not None:
            layer.__class__ = original
            del layer.layer_scale
    return link


def _check_link(link):
    if not isinstance(link, chainer.Link):
        raise TypeError(f'a chainer.Link is converted and restored, not {type(link).__name__}')
