"""What a wrapped optimizer warns of: what is not scaled, not finite, or out of range."""

import os
import pathlib
import traceback
import warnings

from chainerlp import links
from chainerlp.master_weights import is_trained
from chainerlp.overflow import passes_of
from chainerlp.statistics import all_finite, largest_magnitude
from chainerlp.true_gradients import gradient_of, is_held_scaled

import chainer
import numpy

_NOT_THE_USERS = tuple(
    str(pathlib.Path(file).parent) + os.sep for file in (__file__, chainer.__file__)
)


def user_warning(message):
    """Gives a RuntimeWarning of the innermost line outside of this package and Chainer."""
    levels = enumerate(reversed(traceback.extract_stack()), 1)
    outside = (n for n, frame in levels if not frame.filename.startswith(_NOT_THE_USERS))
    warnings.warn(message, RuntimeWarning, stacklevel=next(outside, 2))


def warn_of_plain_gradients(model):
    """Warns of a model's gradients of ``loss.backward()``, in which no layer is scaled.

    Those of zeros are what ``zerograds`` left; of others that are in float16 and have come of a
    scaled pass, the user has made them so.
    """
    for path, param in model.namedparams():
        if (
            not is_held_scaled(param)
            and getattr(param.grad, 'dtype', None) == numpy.float16
            and is_trained(param)
            and not passes_of([param])
            and bool((param.grad != 0).any())
        ):
            user_warning(
                f'update() was called with gradients of loss.backward() (that of {path}, for one),'
                ' in which no layer is scaled: call optimizer.backward(loss) instead, for each loss'
            )
            return


def warn_after_first_pass(model, scaled, compute_dtype=None):
    """Warns if nothing was scaled in a backward pass, or not what a user's class computes.

    Args:
        model (~chainer.Link): The model.
        scaled (set of int): The ids of the :class:`~chainerlp.layer_scale.LayerScale` that the
            pass has asked.
        compute_dtype (str): As for :func:`~chainerlp.convert`. With it nothing is lost of what is
            not scaled.
    """
    if not scaled:
        _warn_of_nothing(model, compute_dtype)
        return
    if compute_dtype is not None:
        return
    warned = set()
    for path, link in model.namedlinks():
        method = links.overridden_call(link)
        if method is None or type(link) in warned or id(link.layer_scale) in scaled:
            continue
        if not any(map(gradient_of, link.params(include_uninit=False))):
            continue  # it had no part in the pass
        warned.add(type(link))
        code = method.__code__
        warnings.warn_explicit(
            f'{method.__qualname__} calls no function of a layer with the weight of {path}: its'
            ' gradients are not scaled',
            RuntimeWarning,
            code.co_filename,
            code.co_firstlineno,
        )


def _warn_of_nothing(model, compute_dtype):
    params = list(model.namedparams(include_uninit=False))
    if not params:
        return
    kind = links.original_name(model)
    wanted = 'float16' if compute_dtype is None else 'float32'
    if any(param.dtype == wanted for _, param in params):
        in_update = '' if compute_dtype is None else ', and no function of one in update(lossfun)'
        user_warning(
            f'AdaptiveLossScaling scales nothing: {kind} has no linear or convolution layer through'
            f' which this loss depends on a {wanted} parameter{in_update}'
        )
    else:
        path, param = params[0]
        user_warning(
            f'AdaptiveLossScaling scales nothing: {kind} has no {wanted} parameter ({path} is'
            f' {param.dtype})'
            + '; build it after chainer.global_config.dtype = chainer.mixed16, or give'
            " compute_dtype='float16'" * (compute_dtype is None)
        )


def what_is_not_finite(model, passes):
    """Says in half a sentence where an inf or a NaN comes from: a parameter, or the first gradient.

    Args:
        model (~chainer.Link): The model.
        passes (list of ~chainerlp.overflow.BackwardPass): Those that its gradients are of.
    """
    params = list(model.namedparams(include_uninit=False))
    for path, param in params:
        if not bool(all_finite(param.array)):
            return f'{path} is not finite'
    for backward_pass in passes:
        if backward_pass.culprit is not None:
            return f'{backward_pass.culprit} is the first that is not finite'
    for path, param in params:
        if param.grad is not None and not bool(all_finite(param.grad)):
            return f'the gradient of {path} is not finite'
    return 'their gradients were not finite'


def largest_parameter(model):
    """Returns the path of the float16 parameter whose master weight is largest."""
    found = [
        (float(largest_magnitude(param.update_rule._fp32_param.array)), path)
        for path, param in model.namedparams(include_uninit=False)
        if param.dtype == numpy.float16 and param.update_rule._fp32_param is not None
    ]
    return max(found)[1]
