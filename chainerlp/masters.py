"""The float32 copies of float16 parameters in snapshots; Chainer itself leaves them out."""

import chainer
import numpy


def serialize(serializer, model):
    """Saves or loads the copies that update rules in float32 keep of a model's parameters.

    A copy that a snapshot does not have is forgotten, and made anew by the next update: one of
    later than the snapshot would undo it.

    Args:
        serializer (~chainer.AbstractSerializer): Where to, or from.
        model (~chainer.Link): The model of an optimizer that has been set up.
    """
    for path, param in model.namedparams():
        if param.update_rule is not None:
            _serialize(serializer, path, param)


def _serialize(serializer, path, param):
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
