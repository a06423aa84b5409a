"""Updates on a GPU, which the device itself takes back where a gradient was not finite.

To decide on the host whether to update, it would have to wait until the backward pass is done, and
the device would idle while the update is prepared. So the update is made in any case: what it
writes to is copied before, and a kernel that knows whether all gradients were finite puts the
copies back afterwards if they were not. The host learns of it when it comes to the next update.
"""

import dataclasses

from chainerlp import kernels
from chainerlp.gpu import on_gpu

import numpy


def is_possible(params):
    """Returns whether an update of parameters can be taken back by the device.

    All have to be on one GPU, and have been updated before, so that the optimizer's state is there.

    Args:
        params (list of ~chainer.Parameter): The parameters that an update changes.
    """
    if not params or any(param.device != params[0].device for param in params):
        return False
    return on_gpu(params[0].array) and all(map(_has_been_updated, params))


def _has_been_updated(param):
    rule = param.update_rule
    has_master = rule._fp32_param is not None or param.dtype != numpy.float16
    return rule.state is not None and (has_master or not rule._use_fp32_update)


def run(params, update, is_finite, loss_is_finite=True, is_stale=False):
    """Updates parameters, and takes it back on the device where gradients were not finite.

    Args:
        params (list of ~chainer.Parameter): Parameters for which it :func:`is_possible`.
        update (callable): Updates them.
        is_finite (0-d bool array): Whether their gradients are finite.
        loss_is_finite (bool or 0-d bool array): Whether the loss is.
        is_stale (bool): Whether the pass was begun before the host knew of an overflow.

    Returns:
        PendingUpdate: What became of it.
    """
    places = [place for param in params for place in _places(param)]
    before = [place.array for place in places]
    is_kept = [place.is_replaced for place in places]
    copies = iter(kernels.copied([a for a, kept in zip(before, is_kept) if not kept]))
    copies = [array if kept else next(copies) for array, kept in zip(before, is_kept)]
    update()
    kernels.put_back(is_finite, [place.array for place in places], copies)
    return PendingUpdate(params, is_finite, loss_is_finite, is_stale)


class PendingUpdate:
    """An update of which only the device knows whether it was taken back.

    Attributes:
        is_stale (bool): Whether the pass was begun before the host knew of an overflow.
    """

    def __init__(self, params, is_finite, loss_is_finite, is_stale):
        self.is_stale = is_stale
        self._params = params
        self._loss_is_finite = loss_is_finite
        self._is_finite, self._has_arrived = is_finite, None
        if on_gpu(is_finite):
            self._is_finite, self._has_arrived = _sent_to_host(is_finite)

    def wait(self):
        """Finds out what became of it, and takes back what the host had counted.

        It waits only if the host is more than an update ahead of the device.

        Returns:
            tuple of bool: Whether a gradient was not finite, and whether the loss was finite.
        """
        if self._has_arrived is not None and not self._has_arrived.done:
            self._has_arrived.synchronize()
        if self._is_finite:
            return False, True
        for param in self._params:
            param.update_rule.t -= 1
        return True, bool(self._loss_is_finite)


def _sent_to_host(flag):
    import cupy
    import cupyx

    on_host = cupyx.empty_pinned(flag.shape, flag.dtype)
    flag.get(stream=cupy.cuda.get_current_stream(), out=on_host, blocking=False)
    has_arrived = cupy.cuda.Event(disable_timing=True)
    has_arrived.record()
    return on_host, has_arrived


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where an update writes to; an update may put another array there."""

    holder: object
    key: str
    is_replaced: bool = False  # whether it always does, so that the old one needs no copy

    @property
    def array(self):
        return self.holder[self.key] if self.key is not None else self.holder.array


def _places(param):
    rule = param.update_rule
    has_master = rule._use_fp32_update and param.dtype == numpy.float16
    yield _Place(param, None, is_replaced=has_master)
    if has_master:
        yield _Place(rule._fp32_param, None)
    for key, value in rule.state.items():
        if isinstance(value, param.device.supported_array_types):
            yield _Place(rule.state, key)
