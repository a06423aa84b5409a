"""Chainer's links of layers that multiply by a weight, with scaled data gradients.

Each is named after Chainer's link, takes the same arguments, and besides ``policy`` (see
:class:`ScaledLink`). Their forward passes call the functions of :mod:`chainerlp.functions`.
"""

import dataclasses
from typing import Any, Optional

from chainerlp import functions, policies
from chainerlp.layer_scale import LayerScale
from chainerlp.types import Input

import chainer
import numpy
from chainer import links, utils
from chainer.links.connection.deformable_convolution_2d import DeformableConvolution2DSampler


class ScaledLink:
    """Mixed in before one of Chainer's links; adds no parameter and no persistent value.

    Args:
        policy: One of :mod:`chainerlp.policies`; the paper's by default.
            :func:`chainerlp.convert`, and so the optimizer's ``setup``, gives the link its own.

    Attributes:
        layer_scale (~chainerlp.layer_scale.LayerScale): What chooses the scale.
    """

    def __init__(self, *args: Any, policy: Optional[policies.Policy] = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        policy = policies.Adaptive() if policy is None else policy
        self.layer_scale = LayerScale(self.policy_for(policy))

    def policy_for(self, policy: policies.Policy) -> policies.Policy:
        """Returns what chooses the scale of this link where a model is given a policy."""
        return policy

    def copy(self, mode: str = 'share') -> chainer.Link:
        """Copies the link; the copy is a layer of its own and chooses scales of its own."""
        copied = super().copy(mode)
        copied.layer_scale = self.layer_scale.anew()
        return copied


class ScaledLinear(ScaledLink, links.Linear):
    """:class:`chainer.links.Linear` with a scaled data gradient."""

    def forward(self, x: Input, n_batch_axes: int = 1) -> chainer.Variable:
        """Applies the layer; see :func:`~chainerlp.functions.scaled_linear`."""
        if self.W.array is None:
            self._initialize_params(utils.size_of_shape(x.shape[n_batch_axes:]))
        return functions.scaled_linear(
            x, self.W, self.b, n_batch_axes, layer_scale=self.layer_scale
        )


class ScaledBilinear(ScaledLink, links.Bilinear):
    """:class:`chainer.links.Bilinear` with scaled data gradients, one scale for each input.

    Unlike Chainer's link it takes float16.
    """

    def forward(self, e1: Input, e2: Input) -> chainer.Variable:
        """Applies the layer; see :func:`~chainerlp.functions.scaled_bilinear`."""
        linear = () if self.nobias else (self.V1, self.V2, self.b)
        return functions.scaled_bilinear(e1, e2, self.W, *linear, layer_scale=self.layer_scale)


class _ScaledConvolution(ScaledLink):
    """Base of the links that apply a function to images (and offsets), ``W`` and ``b``.

    A subclass names the function, and those of its own attributes that are keyword arguments of it.
    """

    _scaled_function = None
    _scaled_options = ()

    def forward(self, x: Input, *offset: Input) -> chainer.Variable:
        """Applies the layer; see the function of the same name in :mod:`chainerlp.functions`."""
        if self.W.array is None:
            self._initialize_params(x.shape[1])
        options = {name: getattr(self, name) for name in self._scaled_options}
        return self._scaled_function(
            x, *offset, self.W, self.b, layer_scale=self.layer_scale, **options
        )


class ScaledConvolution2D(_ScaledConvolution, links.Convolution2D):
    """:class:`chainer.links.Convolution2D` with a scaled data gradient."""

    _scaled_function = staticmethod(functions.scaled_convolution_2d)
    _scaled_options = ('stride', 'pad', 'dilate', 'groups')

    def forward(self, x: Input) -> chainer.Variable:
        """Applies the layer; see :func:`~chainerlp.functions.scaled_convolution_2d`."""
        if self.cudnn_fast:
            return links.Convolution2D.forward(self, x)
        return super().forward(chainer.as_variable(x))


class ScaledDilatedConvolution2D(_ScaledConvolution, links.DilatedConvolution2D):
    """:class:`chainer.links.DilatedConvolution2D` with a scaled data gradient."""

    _scaled_function = staticmethod(functions.scaled_convolution_2d)
    _scaled_options = ('stride', 'pad', 'dilate')


class ScaledConvolutionND(_ScaledConvolution, links.ConvolutionND):
    """:class:`chainer.links.ConvolutionND` with a scaled data gradient."""

    _scaled_function = staticmethod(functions.scaled_convolution_nd)
    _scaled_options = ('stride', 'pad', 'cover_all', 'dilate', 'groups')


class ScaledConvolution1D(ScaledConvolutionND, links.Convolution1D):
    """:class:`chainer.links.Convolution1D` with a scaled data gradient."""


class ScaledConvolution3D(ScaledConvolutionND, links.Convolution3D):
    """:class:`chainer.links.Convolution3D` with a scaled data gradient."""


class ScaledDeconvolution2D(_ScaledConvolution, links.Deconvolution2D):
    """:class:`chainer.links.Deconvolution2D` with a scaled data gradient."""

    _scaled_function = staticmethod(functions.scaled_deconvolution_2d)
    _scaled_options = ('stride', 'pad', 'outsize', 'dilate', 'groups')


class ScaledDeconvolutionND(_ScaledConvolution, links.DeconvolutionND):
    """:class:`chainer.links.DeconvolutionND` with a scaled data gradient."""

    _scaled_function = staticmethod(functions.scaled_deconvolution_nd)
    _scaled_options = ('stride', 'pad', 'outsize', 'dilate', 'groups')


class ScaledDeconvolution1D(ScaledDeconvolutionND, links.Deconvolution1D):
    """:class:`chainer.links.Deconvolution1D` with a scaled data gradient."""


class ScaledDeconvolution3D(ScaledDeconvolutionND, links.Deconvolution3D):
    """:class:`chainer.links.Deconvolution3D` with a scaled data gradient."""


class ScaledDepthwiseConvolution2D(_ScaledConvolution, links.DepthwiseConvolution2D):
    """:class:`chainer.links.DepthwiseConvolution2D` with a scaled data gradient."""

    _scaled_function = staticmethod(functions.scaled_depthwise_convolution_2d)
    _scaled_options = ('stride', 'pad')


class ScaledLocalConvolution2D(_ScaledConvolution, links.LocalConvolution2D):
    """:class:`chainer.links.LocalConvolution2D` with a scaled data gradient."""

    _scaled_function = staticmethod(functions.scaled_local_convolution_2d)
    _scaled_options = ('stride',)

    def forward(self, x: Input) -> chainer.Variable:
        """Applies the layer; see :func:`~chainerlp.functions.scaled_local_convolution_2d`."""
        if self.W.array is None:
            self._initialize_params(x.shape[1], x.shape[2:])
        return super().forward(x)


class ScaledDeformableConvolution2DSampler(_ScaledConvolution, DeformableConvolution2DSampler):
    """Chainer's ``DeformableConvolution2DSampler`` with a scaled data gradient.

    It is a child of ``chainer.links.DeformableConvolution2D``, beside the convolution that finds
    the offsets.
    """

    _scaled_function = staticmethod(functions.scaled_deformable_convolution_2d_sampler)
    _scaled_options = ('stride', 'pad')


class Cast(chainer.Link):
    """A cast to float32, of logits before a loss: nothing but :func:`chainer.functions.cast`.

    :func:`chainerlp.convert`, and so the optimizer's ``setup``, makes it a :class:`ScaledCast`.

    Args:
        lognormal (bool): Whether the paper's policy is to take its gradient as log-normal, and not
            as normal.
    """

    def __init__(self, lognormal: bool = False) -> None:
        super().__init__()
        self.lognormal = lognormal

    def forward(self, x: Input) -> chainer.Variable:
        """Casts."""
        return chainer.functions.cast(x, 'float32')


class ScaledCast(ScaledLink, Cast):
    """:class:`Cast` with a scaled gradient.

    A policy chooses its scale as a layer's, with K = 1 and W = 1. In place of
    :class:`~chainerlp.policies.Adaptive` that is, with the same threshold, bounds and interval,
    :class:`~chainerlp.policies.LogNormal`, or else ``Adaptive`` with σ² = E[gy²]: IJCAI 2020/404
    has log-normal casts of SegNet's logits and SSD's confidences, and normal ones of SSD's
    locations.
    """

    def forward(self, x: Input) -> chainer.Variable:
        """Casts; see :func:`~chainerlp.functions.scaled_cast`."""
        return functions.scaled_cast(x, 'float32', layer_scale=self.layer_scale)

    def policy_for(self, policy: policies.Policy) -> policies.Policy:
        """Returns what chooses the scale of this link where a model is given a policy."""
        if not isinstance(policy, policies.Adaptive):
            return policy
        if not self.lognormal:
            return dataclasses.replace(policy, variance='product')
        fields = dataclasses.fields(policies.LogNormal)
        return policies.LogNormal(**{field.name: getattr(policy, field.name) for field in fields})


class ScaledNStepLayer(ScaledLink, chainer.Link):
    """The weights of one layer and direction of a stacked RNN: a child link of it.

    It is what the paper calls a layer, and has a scale for each of its uses over time.
    """


class ScaledNStepRNN:
    """Mixed in before one of Chainer's links of stacked RNNs.

    In float16, or with a ``compute_dtype`` or a ``gradient_format``, the recurrence is computed
    step by step, by cuDNN neither forward nor backward; otherwise by Chainer's function.

    Args:
        policy: One of :mod:`chainerlp.policies`; the paper's by default.
    """

    _scaled_cell: str

    def __init__(self, *args: Any, policy: Optional[policies.Policy] = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        convert_layers(self)
        policy = policies.Adaptive() if policy is None else policy
        for layer in self:
            layer.layer_scale = LayerScale(policy)

    def rnn(self, n_layers: int, dropout_ratio: float, *args: Any) -> tuple:
        """Applies the layers to sequences of descending length, transposed."""
        *states, ws, bs, xs = args
        layer_scales = [getattr(layer, 'layer_scale', None) for layer in self]
        rounds = any(scale and scale.rounds for scale in layer_scales)
        if xs[0].dtype != numpy.float16 and not rounds:
            return super().rnn(n_layers, dropout_ratio, *args)
        hx, cx = states if self.n_cells == 2 else (*states, None)
        arguments = n_layers, dropout_ratio, hx, cx, ws, bs, xs, self.use_bi_direction
        hy, cy, ys = functions.scaled_n_step_rnn(self._scaled_cell, *arguments, layer_scales)
        return (hy, ys) if cx is None else (hy, cy, ys)


def convert_layers(rnn):
    """Makes the child links of a :class:`ScaledNStepRNN` scaled; ``layer_scale`` is not set."""
    for layer in rnn:
        if type(layer) is chainer.Link:
            layer.__class__ = ScaledNStepLayer


def _scaled_rnn(original, cell):
    """Returns the scaled class of one of Chainer's links of stacked RNNs."""
    name = f'Scaled{original.__name__}'
    doc = f':class:`chainer.links.{original.__name__}` with scaled data gradients.'
    namespace = {'__module__': __name__, '__doc__': doc, '_scaled_cell': cell}
    return type(name, (ScaledNStepRNN, original), namespace)


ScaledNStepLSTM = _scaled_rnn(links.NStepLSTM, 'lstm')
ScaledNStepBiLSTM = _scaled_rnn(links.NStepBiLSTM, 'lstm')
ScaledNStepGRU = _scaled_rnn(links.NStepGRU, 'gru')
ScaledNStepBiGRU = _scaled_rnn(links.NStepBiGRU, 'gru')
ScaledNStepRNNTanh = _scaled_rnn(links.NStepRNNTanh, 'tanh')
ScaledNStepBiRNNTanh = _scaled_rnn(links.NStepBiRNNTanh, 'tanh')
ScaledNStepRNNReLU = _scaled_rnn(links.NStepRNNReLU, 'relu')
ScaledNStepBiRNNReLU = _scaled_rnn(links.NStepBiRNNReLU, 'relu')
