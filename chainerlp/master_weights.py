"""Master weights: float32 copies of float16 parameters, which updates are made in.

Chainer's ``use_fp32_update`` keeps one in each update rule, makes it at the first update, and
leaves it out of snapshots.
"""

from chainerlp import kernels

import chainer
import numpy


def synchronize(params):
    """Makes the master weights hold what their parameters do, before an update.

    Where a parameter was changed since the last update (clipped, loaded, averaged), its master
    takes the new values over; Chainer would undo the change. Parameters that share an array
    (``copy(mode='share')``) share a master; with Chainer's, one each, the last one's update would
    win.

    Args:
        params (iterable of ~chainer.Parameter): The parameters.
    """
    first_of_array, pairs_by_device = {}, {}
    for param in params:
        rule = param.update_rule
        if rule is None or param.array is None or param.dtype != numpy.float16:
            continue
        first = first_of_array.setdefault(id(param.array), param)
        if first is not param:
            rule._fp32_param = _shared_master(first)
        elif rule._fp32_param is not None and rule._fp32_param.array is not None:
            pair = (rule._fp32_param.array, param.array)
            pairs_by_device.setdefault(param.device, []).append(pair)
    for device, pairs in pairs_by_device.items():
        with chainer.using_device(device):
            kernels.renew(*zip(*pairs))


def _shared_master(param):
    rule = param.update_rule
    if rule._fp32_param is None:
        rule._fp32_param = chainer.Parameter(param.array.astype(numpy.float32), name=param.name)
    return rule._fp32_param


def discard(params):
    """Drops the master weights: they are made anew from the parameters."""
    for param in params:
        if param.update_rule is not None:
            param.update_rule._fp32_param = None


def serialize(serializer, model):
    """Saves or loads the master weights of a model.

    One that a snapshot does not have is discarded, and made anew by the next update: one of later
    than the snapshot would undo it.

    Args:
        serializer (~chainer.AbstractSerializer): Where to, or from.
        model (~chainer.Link): The model of an optimizer that has been set up.
    """
    for path, param in model.namedparams():
        rule = param.update_rule
        if rule is None:
            continue
        key = path.lstrip('/')  # HDF5 takes a slash in front for the root of the file
        if isinstance(serializer, chainer.Deserializer):
            array = serializer(key, None)
            has_master = array is not None and array.size > 0
            rule._fp32_param = (
                chainer.Parameter(param.device.send(array), name=param.name) if has_master else None
            )
        else:
            master = rule._fp32_param
            has_none = master is None or master.array is None
            serializer(key, numpy.empty(0, numpy.float32) if has_none else master.array)
