"""The ways of training that a benchmark compares."""

import chainerlp
from chainerlp import policies

import chainer
import numpy

# Everything is set beside it: Chainer's own backward pass and static loss scaling, in the scaled
# layers' arithmetic.
REFERENCE = 'fixed'
PLAIN = 'plain Chainer mixed16'
POLICIES = {
    'adaptive': policies.Adaptive,
    'amax': policies.Amax,
    'measured': policies.Measured,
    'abs_range': policies.AbsRange,
    'log_normal': policies.LogNormal,
}
_INTERVALS = (1, 10, 100)


def _chainers(optimizer, model):
    optimizer.use_fp32_update()
    return optimizer.setup(model)


def _fixed(optimizer, model):
    chainerlp.convert(model, policies.Fixed(1))
    optimizer.loss_scaling(scale=128.0)
    return _chainers(optimizer, model)


def _wrapped(policy):
    return lambda optimizer, model: chainerlp.AdaptiveLossScaling(optimizer, policy).setup(model)


def compared(names, with_plain=True):
    """Returns the methods of a comparison.

    Args:
        names (iterable of str): Policies, by their names in ``POLICIES``; each at three intervals.
        with_plain (bool): Whether plain Chainer in mixed16 is one of them. On a CPU, where NumPy
            multiplies float16 matrices, it takes tens of times as long as the rest.

    Returns:
        dict of str to tuple: For each method the dtype to build the model in, and what sets an
        optimizer up for it.
    """
    methods = {'fp32': (numpy.dtype('float32'), _chainers)}
    if with_plain:
        methods[PLAIN] = (chainer.mixed16, _chainers)
    methods[REFERENCE] = (chainer.mixed16, _fixed)
    for name in names:
        for interval in _INTERVALS:
            policy = POLICIES[name](interval=interval)
            methods[f'{name}, interval {interval}'] = (chainer.mixed16, _wrapped(policy))
    return methods
