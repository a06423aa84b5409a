"""Layer-wise adaptive loss scaling for mixed precision training in Chainer.

Import this package before Chainer: on a current NumPy and setuptools, Chainer 7.8.1 can be imported
only with the patches of :mod:`chainerlp.compat`.
"""

from chainerlp import compat  # noqa: I001 -- first: it lets Chainer be imported
from chainerlp import extensions, formats, functions, links, optimizer_hooks, policies
from chainerlp.backprop import backward
from chainerlp.diagnosis import diagnose
from chainerlp.extensions.gradient_error import gradient_error
from chainerlp.links import convert, restore
from chainerlp.optimizers import AdaptiveLossScaling
from chainerlp.true_gradients import unscaled_grad

__version__ = '0.1.0'

__all__ = [
    'AdaptiveLossScaling',
    'backward',
    'compat',
    'convert',
    'diagnose',
    'extensions',
    'formats',
    'functions',
    'gradient_error',
    'links',
    'optimizer_hooks',
    'policies',
    'restore',
    'unscaled_grad',
]
