"""Updates that change nothing where gradients were not finite, of which only the device knows.

To decide on the host whether to skip an update on a GPU, the host would have to wait until the
backward pass is done, and the device would idle while the update is prepared. So there the update
is made in any case, and the kernels of Chainer's update rules write only if a flag on the device is
set. Where others may write, a user's update rule or hook, arrays are copied before, and a kernel
that reads the flag puts the copies back. The host learns of it when it comes to the next update
(:class:`~chainerlp.overflow.PendingUpdate`).
"""

import contextlib
import contextvars

from chainerlp import gpu
from chainerlp.compat.patching import Overlay, patch, with_globals
from chainerlp.gpu import on_gpu
from chainerlp.master_weights import is_trained

import chainer
import numpy
from chainer import backend
from chainer.backends import cuda

# The flag of the update that is being made.
_flag = contextvars.ContextVar('chainerlp_flag', default=None)
# Hooks of these modules write to gradients alone.
_OF_GRADIENTS = ('chainer.optimizer_hooks.', 'chainerlp.optimizer_hooks')


def can_be_gated(params):
    """Returns whether an update of parameters can be left to the device to skip.

    All have to be on one GPU, and have been updated before, so that the optimizer's state is there.
    """
    return (
        len({param.device for param in params}) == 1
        and on_gpu(params[0].array)
        and all(param.update_rule.state is not None for param in params)
    )


def counters_of(params):
    """Returns what update rules count on the host, such as ``t``: each rule with a dictionary."""
    return [
        (rule, {name: value for name, value in vars(rule).items() if type(value) in (int, float)})
        for rule in (param.update_rule for param in params)
    ]


def writes_to_gradients_alone(hook):
    """Returns whether a hook is known to write to gradients only.

    Chainer's own are, and those that say so by an attribute ``writes_to_gradients_alone``.

    Args:
        hook (callable): A hook of an optimizer or of an update rule.
    """
    is_known = type(hook).__module__.startswith(_OF_GRADIENTS)
    return is_known or getattr(hook, 'writes_to_gradients_alone', False)


@contextlib.contextmanager
def gated(params, flag, by_rules_alone=True):
    """Context manager in which updates change parameters only where a flag on the device is set.

    Args:
        params (list of ~chainer.Parameter): Parameters. Those that are trained, together with other
            groups, :func:`can_be_gated`; float16 ones hold their master weights.
        flag (0-d bool array): The flag; ``None`` if they may change in any case.
        by_rules_alone (bool): Whether nothing but their update rules, and hooks of these, writes to
            them or to the rules' states.
    """
    trained = [param for param in params if param.array is not None and is_trained(param)]
    copied = [p for p in trained if not (by_rules_alone and _writes_by_kernels_alone(p))]
    if flag is None:
        copied = []
    state_entries = [
        (param.update_rule.state, key)
        for param in copied
        for key, value in param.update_rule.state.items()
        if isinstance(value, param.device.supported_array_types)
    ]

    def written():
        return [param.array for param in copied] + [state[key] for state, key in state_entries]

    arrays = written()
    copies = [backend.get_array_module(array).empty_like(array) for array in arrays]
    copy_unless(False, arrays=copies, copies=arrays)
    token = _flag.set(flag)
    try:
        yield
    finally:
        _flag.reset(token)
    copy_unless(flag, arrays=written(), copies=copies)


def _writes_by_kernels_alone(param):
    rule = param.update_rule
    hooks = rule._hookable
    return (
        on_gpu(param.array)
        and type(rule) in _RULES
        # Neither an earlier import of this module has replaced it, nor anybody later.
        and getattr(type(rule).update_core_gpu, '__globals__', {}).get('cuda') is _IN_RULES
        and not vars(rule).keys() & {'update', 'update_core', 'update_core_gpu'}
        and all(map(writes_to_gradients_alone, hooks._pre_update_hooks.values()))
        and all(map(writes_to_gradients_alone, hooks._post_update_hooks.values()))
    )


def _elementwise(in_params, out_params, operation, name):
    """Stands for ``cuda.elementwise`` in Chainer's update rules: its kernel can be gated."""
    plain = cuda.elementwise(in_params, out_params, operation, name)

    def launch(*arguments):
        flag = _flag.get()
        if flag is None:
            return plain(*arguments)
        in_gate = f'if (may_write[0]) {{ {operation}; }}'
        kernel = cuda.elementwise(
            'raw bool may_write, ' + in_params, out_params, in_gate, name + '_gated'
        )
        return kernel(flag, *arguments)

    return launch


_RULES = {
    rule
    for rule in chainer.UpdateRule.__subclasses__()
    if rule.__module__.startswith('chainer.optimizers.')
}
_IN_RULES = Overlay(cuda, elementwise=_elementwise)
for _rule in _RULES:
    patch(_rule, 'update_core_gpu', with_globals(cuda=_IN_RULES))
    for _name in vars(_rule):
        if _name.endswith('_kernel'):  # made before, by the function that has been replaced
            setattr(_rule, _name, None)


_COPYING = r"""
struct Copies {
    unsigned char* to[100];
    const unsigned char* from[100];
    index_t bytes[100];
    int begin[100];
};

extern "C" __global__ void copy_unless(Copies copies, const bool* is_right) {
    if (is_right && *is_right) return;
    const Share share = share_of(copies.begin);
    unsigned char* to = copies.to[share.k];
    const unsigned char* from = copies.from[share.k];
    const index_t bytes = copies.bytes[share.k];
    index_t done = 0;
    if (is_aligned(to) && is_aligned(from)) {
        #pragma unroll 4
        for (index_t i = share.first; i < bytes / 16; i += share.all)
            store_words(words_at(from + 16 * i), to + 16 * i);
        done = bytes / 16 * 16;
    }
    for (index_t i = done + share.first; i < bytes; i += share.all) to[i] = from[i];
}
"""
_COPIES = numpy.dtype(
    [('to', 'u8', 100), ('from', 'u8', 100), ('bytes', 'i8', 100), ('begin', 'i4', 100)]
)


def copy_unless(is_right, arrays, copies):
    """Copies arrays to others, unless these are right as they are; on a GPU by one kernel for 100.

    Args:
        is_right (bool or 0-d bool array): Nothing is done if it is true.
        arrays (list of :ref:`ndarray`): What is written to, on one device.
        copies (list of :ref:`ndarray`): As many arrays, of the same shapes and dtypes.
    """
    rows = []
    for target, copy_of_it in zip(arrays, copies):
        has_no_gaps = target.flags.c_contiguous or target.flags.f_contiguous
        if on_gpu(target) and has_no_gaps and target.strides == copy_of_it.strides:
            rows.append((target, copy_of_it, target.nbytes))
        elif is_right is False:
            target[...] = copy_of_it
        else:  # a parameter that is a part of another array, say
            target[...] = backend.get_array_module(target).where(is_right, target, copy_of_it)
    flag = None if is_right is False else is_right
    gpu.launch_for_each(_COPYING, 'copy_unless', _COPIES, rows, flag)
