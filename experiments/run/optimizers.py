"""Optimizers: from a config's ``optimizer`` and ``scaling`` sections to one that is set up.

Whatever the method of scaling, float16 parameters are updated in float32, and linear layers and
convolutions compute with chainerlp's functions, which on a CPU have a tensor core's arithmetic. So
the methods differ in how gradients are scaled, and in nothing else.
"""

import chainerlp
from chainerlp import policies

import chainer
import numpy
from chainer import optimizer_hooks, optimizers

DTYPES = {
    'float32': numpy.dtype('float32'),
    'float16': numpy.dtype('float16'),
    'mixed16': chainer.mixed16,
}

_CLASSES = {'sgd': optimizers.SGD, 'momentum_sgd': optimizers.MomentumSGD, 'adam': optimizers.Adam}
_OF_HOOKS = {'weight_decay', 'undecayed', 'bias_rate'}
POLICIES = {
    'adaptive': policies.Adaptive,
    'per_sample': policies.PerSample,
    'amax': policies.Amax,
    'measured': policies.Measured,
}
"""dict of str to type: The policies that are compared with each other, by the method's name."""
_LAYERWISE = {
    **POLICIES,
    'abs_range': policies.AbsRange,
    'element_wise_range': policies.ElementWiseRange,
    'log_normal': policies.LogNormal,
}
_OF_THE_WRAPPER = {'initial_scale', 'scale_weights'}


def build(section):
    """Returns an optimizer that is not yet set up, by a config's ``optimizer`` section."""
    kind = _CLASSES[section.name]
    if getattr(section, 'corrected', False):
        kind = optimizers.CorrectedMomentumSGD
    return kind(**section.model_dump(exclude={'name', 'corrected', *_OF_HOOKS}))


def setup(optimizer, model, scaling):
    """Sets up an optimizer for a model, with the given way of scaling.

    Args:
        optimizer (~chainer.GradientMethod): The optimizer.
        model (~chainer.Link): The model; its layers are converted in place.
        scaling: The ``scaling`` section of a config.

    Returns:
        ~chainer.GradientMethod or ~chainerlp.AdaptiveLossScaling: The optimizer to train with.
    """
    if scaling.method in _LAYERWISE:
        others = {'method', 'dtype', 'compute', 'gradient_format', 'label'}
        options = scaling.model_dump(exclude=others | _OF_THE_WRAPPER)
        wrapper = chainerlp.AdaptiveLossScaling(
            optimizer,
            _LAYERWISE[scaling.method](**options),
            compute_dtype=scaling.compute,
            gradient_format=scaling.gradient_format,
            **scaling.model_dump(include=_OF_THE_WRAPPER),
        )
        return wrapper.setup(model)
    if getattr(scaling, 'compute', None) is not None:
        constant = policies.Fixed(scaling.scale if scaling.method == 'fixed' else 1)
        wrapper = chainerlp.AdaptiveLossScaling(
            optimizer, constant, initial_scale=1.0, compute_dtype=scaling.compute
        )
        return wrapper.setup(model)
    if scaling.method == 'fixed':
        optimizer.loss_scaling(scale=scaling.scale)
    elif scaling.method == 'dynamic':
        optimizer.loss_scaling(interval=scaling.interval)
    gradient_format = getattr(scaling, 'gradient_format', None)
    chainerlp.convert(model, policies.Fixed(1), gradient_format=gradient_format)
    if scaling.dtype != 'float32':
        optimizer.use_fp32_update()
    return optimizer.setup(model)


def add_hooks(optimizer, section):
    """Gives the parameters of an optimizer that is set up their weight decay and biases their rate.

    In float32, whatever their dtype.
    """
    for param in optimizer.target.params():
        if section.weight_decay and param.name not in section.undecayed:
            param.update_rule.add_hook(_WeightDecay(section.weight_decay))
        if param.name == 'b' and getattr(section, 'bias_rate', 1) != 1:
            param.update_rule.add_hook(_GradientScaling(section.bias_rate))


class _GradientScaling:
    """Hook of an update rule that multiplies a gradient, scaled or not, by a number."""

    name = 'GradientScaling'
    timing = 'pre'
    call_for_each_param = True
    writes_to_gradients_alone = True  # see chainerlp.gated_update

    def __init__(self, rate):
        self._rate = rate

    def __call__(self, rule, param):
        with chainer.using_device(param.device):
            param.grad *= self._rate


class _WeightDecay(optimizer_hooks.WeightDecay):
    """Chainer's, for update rules: on the float32 copy of a parameter and its true gradient.

    Added to an optimizer, it would add to a gradient that is still scaled and in float16.
    """

    writes_to_gradients_alone = True

    def __call__(self, rule, param):
        # Of a float32 parameter too the rule has divided the gradient already, but the scale is
        # still there, and Chainer's hook would multiply by it.
        scale, param._loss_scale = param._loss_scale, None
        try:
            super().__call__(rule, param)
        finally:
            param._loss_scale = scale
