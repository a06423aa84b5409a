"""The float32 copies of float16 parameters, in which updates are made: Chainer's ``fp32_update``.

Chainer keeps one in each update rule, makes it at the first update, and leaves it out of snapshots.
"""

from chainerlp import kernels

import chainer
import numpy


def keep_in_step(params):
    """Prepares the copies for an update: they hold what the parameters do.

    Where a parameter was changed since the last update (clipped, loaded, averaged), its copy takes
    the new values over; Chainer would undo the change. Parameters that share an array
    (``copy(mode='share')``) share a copy; of Chainer's, one each, the last one's update would win.

    Args:
        params (iterable of ~chainer.Parameter): The parameters.
    """
    of_array, by_device = {}, {}
    for param in params:
        rule = param.update_rule
        if rule is None or param.array is None or param.dtype != numpy.float16:
            continue
        first = of_array.setdefault(id(param.array), param)
        if first is not param:
            _share(first, param)
        elif rule._fp32_param is not None and rule._fp32_param.array is not None:
            pair = (rule._fp32_param.array, param.array)
            by_device.setdefault(param.device, []).append(pair)
    for device, pairs in by_device.items():
        with chainer.using_device(device):
            kernels.renew(*zip(*pairs))


def _share(first, param):
    rule = first.update_rule
    if rule._fp32_param is None:
        rule._fp32_param = chainer.Parameter(first.array.astype(numpy.float32), name=first.name)
    param.update_rule._fp32_param = rule._fp32_param


def forget(params):
    """Drops the copies: they are made anew from the parameters."""
    for param in params:
        if param.update_rule is not None:
            param.update_rule._fp32_param = None


def serialize(serializer, model):
    """Saves or loads the copies that update rules keep of a model's parameters.

    A copy that a snapshot does not have is forgotten, and made anew by the next update: one of
    later than the snapshot would undo it.

    Args:
        serializer (~chainer.AbstractSerializer): Where to, or from.
        model (~chainer.Link): The model of an optimizer that has been set up.
    """
    for path, param in model.namedparams():
        if param.update_rule is not None:
            # Without the slash in front, which HDF5 takes for the root of the file.
            _serialize_one(serializer, path.lstrip('/'), param)


def _serialize_one(serializer, path, param):
    rule = param.update_rule
    if isinstance(serializer, chainer.Deserializer):
        array = serializer(path, None)
        if array is None or array.size == 0:
            rule._fp32_param = None
        else:
            array = param.device.send(array)
            rule._fp32_param = chainer.Parameter(array, name=param.name)
    else:
        master = rule._fp32_param
        has_none = master is None or master.array is None
        serializer(path, numpy.empty(0, numpy.float32) if has_none else master.array)
