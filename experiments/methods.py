"""The ways of scaling gradients: from a config's ``scaling`` section to an optimizer set up for it.

Whatever the method, float16 parameters are updated in float32, and linear layers and convolutions
compute with chainerlp's functions, which on a CPU stand for the tensor core. So the methods differ
in how gradients are scaled, and in nothing else.
"""

import chainerlp
from chainerlp import policies

import chainer
import numpy

DTYPES = {
    'float32': numpy.dtype('float32'),
    'float16': numpy.dtype('float16'),
    'mixed16': chainer.mixed16,
}

_POLICIES = {
    'adaptive': policies.Adaptive,
    'amax': policies.Amax,
    'measured': policies.Measured,
}
_OF_THE_OPTIMIZER = {'initial_scale', 'scale_weights'}


def setup(optimizer, model, scaling):
    """Sets up an optimizer for a model, with the given way of scaling.

    Args:
        optimizer (~chainer.GradientMethod): The optimizer.
        model (~chainer.Link): The model; its layers are converted in place.
        scaling: The ``scaling`` section of a config.

    Returns:
        ~chainer.GradientMethod or ~chainerlp.AdaptiveLossScaling: The optimizer to train with.
    """
    return _SETUPS[scaling.method](optimizer, model, scaling)


def _chainer(optimizer, model, scaling):
    chainerlp.convert(model, policies.Fixed(1))
    if scaling.dtype != 'float32':
        optimizer.use_fp32_update()
    return optimizer.setup(model)


def _fixed(optimizer, model, scaling):
    optimizer.loss_scaling(scale=scaling.scale)
    return _chainer(optimizer, model, scaling)


def _dynamic(optimizer, model, scaling):
    optimizer.loss_scaling(interval=scaling.interval)
    return _chainer(optimizer, model, scaling)


def _layerwise(optimizer, model, scaling):
    policy = _POLICIES[scaling.method](
        **scaling.model_dump(exclude={'method', 'dtype', 'label'} | _OF_THE_OPTIMIZER)
    )
    wrapper = chainerlp.AdaptiveLossScaling(
        optimizer, policy, **scaling.model_dump(include=_OF_THE_OPTIMIZER)
    )
    return wrapper.setup(model)


_SETUPS = {
    'fp32': _chainer,
    'none': _chainer,
    'fixed': _fixed,
    'dynamic': _dynamic,
    **dict.fromkeys(_POLICIES, _layerwise),
}
