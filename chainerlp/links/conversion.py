"""Conversion of a model in place: links change their class and nothing else."""

import warnings
import weakref

from chainerlp.functions import LayerScale
from chainerlp.links import n_step_rnn
from chainerlp.links.bilinear import ScaledBilinear
from chainerlp.links.convolution_2d import ScaledConvolution2D
from chainerlp.links.convolution_nd import (
    ScaledConvolution1D,
    ScaledConvolution3D,
    ScaledConvolutionND,
)
from chainerlp.links.deconvolution_2d import ScaledDeconvolution2D
from chainerlp.links.deconvolution_nd import (
    ScaledDeconvolution1D,
    ScaledDeconvolution3D,
    ScaledDeconvolutionND,
)
from chainerlp.links.deformable_convolution_2d import ScaledDeformableConvolution2DSampler
from chainerlp.links.depthwise_convolution_2d import ScaledDepthwiseConvolution2D
from chainerlp.links.dilated_convolution_2d import ScaledDilatedConvolution2D
from chainerlp.links.linear import ScaledLinear
from chainerlp.links.local_convolution_2d import ScaledLocalConvolution2D
from chainerlp.links.scaled_link import ScaledLink
from chainerlp.links.scaled_subclass import ScaledSubclass, scaled_subclass

import chainer
from chainer import links
from chainer.links.connection.deformable_convolution_2d import DeformableConvolution2DSampler

_SCALED_BY_ORIGINAL = {
    links.Bilinear: ScaledBilinear,
    links.Convolution1D: ScaledConvolution1D,
    links.Convolution2D: ScaledConvolution2D,
    links.Convolution3D: ScaledConvolution3D,
    links.ConvolutionND: ScaledConvolutionND,
    links.Deconvolution1D: ScaledDeconvolution1D,
    links.Deconvolution2D: ScaledDeconvolution2D,
    links.Deconvolution3D: ScaledDeconvolution3D,
    links.DeconvolutionND: ScaledDeconvolutionND,
    DeformableConvolution2DSampler: ScaledDeformableConvolution2DSampler,
    links.DepthwiseConvolution2D: ScaledDepthwiseConvolution2D,
    links.DilatedConvolution2D: ScaledDilatedConvolution2D,
    links.Linear: ScaledLinear,
    links.LocalConvolution2D: ScaledLocalConvolution2D,
    links.NStepBiGRU: n_step_rnn.ScaledNStepBiGRU,
    links.NStepBiLSTM: n_step_rnn.ScaledNStepBiLSTM,
    links.NStepBiRNNReLU: n_step_rnn.ScaledNStepBiRNNReLU,
    links.NStepBiRNNTanh: n_step_rnn.ScaledNStepBiRNNTanh,
    links.NStepGRU: n_step_rnn.ScaledNStepGRU,
    links.NStepLSTM: n_step_rnn.ScaledNStepLSTM,
    links.NStepRNNReLU: n_step_rnn.ScaledNStepRNNReLU,
    links.NStepRNNTanh: n_step_rnn.ScaledNStepRNNTanh,
}
_ORIGINAL_BY_SCALED = {scaled: original for original, scaled in _SCALED_BY_ORIGINAL.items()}
_ORIGINAL_BY_SCALED[n_step_rnn.ScaledNStepLayer] = chainer.Link

# What a link is called by. A class that overrides one of these computes something of its own.
_CALLS = ('__call__', 'forward', 'rnn')

_warned_of = weakref.WeakSet()


def convert(link, policy, scale_weights=None):
    """Turns the layers of a model into scaled ones, in place.

    Layers are Chainer's links that multiply by a weight: linear, convolution, deconvolution and
    their kin, bilinear, the n-step RNNs; and links that consist of such. A subclass that a user
    wrote is converted if it does not override ``forward``; otherwise it is left alone, with one
    warning for each class. Everything else passes scales through as it is.

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
        scaled = _scaled_class(type(layer))
        if scaled is not None:
            layer.__class__ = scaled
        if isinstance(layer, n_step_rnn.ScaledNStepRNN):
            n_step_rnn.convert_layers(layer)  # links() comes to them next
        if isinstance(layer, ScaledLink):
            layer.layer_scale = LayerScale(policy, scale_weights)
    return link


def restore(link):
    """Turns the scaled links of a model back into what they were before, in place.

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
    return link


def _scaled_class(kind):
    """Returns the scaled class for a link's class; ``None`` if it is to stay as it is."""
    if kind in _SCALED_BY_ORIGINAL:
        return _SCALED_BY_ORIGINAL[kind]
    if any(base in _ORIGINAL_BY_SCALED for base in kind.__mro__):
        return None
    base = next((base for base in kind.__mro__ if base in _SCALED_BY_ORIGINAL), None)
    if base is None:
        return None
    overridden = [c for c in _CALLS if getattr(kind, c, None) is not getattr(base, c, None)]
    if overridden:
        _warn_once(kind, base, overridden[0])
        return None
    return scaled_subclass(kind, _SCALED_BY_ORIGINAL[base])


def _original_class(kind):
    if issubclass(kind, ScaledSubclass):
        return kind.scaled_from[0]
    return _ORIGINAL_BY_SCALED.get(kind)


def _warn_once(kind, base, method):
    if kind not in _warned_of:
        _warned_of.add(kind)
        warnings.warn(
            f'{kind.__module__}.{kind.__qualname__} overrides {method} of'
            f' chainer.links.{base.__name__}: its gradients are not scaled',
            RuntimeWarning,
            stacklevel=4,
        )


def _check_link(link):
    if not isinstance(link, chainer.Link):
        raise TypeError(f'a chainer.Link is converted and restored, not {type(link).__name__}')
