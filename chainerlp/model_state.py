"""Saving all state of a model and restoring it exactly."""

import contextlib
import random

import chainer
import numpy


@contextlib.contextmanager
def preserved(model):
    """Restores a model at the end, whatever was done to it: run, converted, its gradients filled.

    Restored are the classes and attributes of all links; their parameters with gradients and loss
    scales, uninitialized ones uninitialized; persistent values such as the running statistics of
    batch normalization; the contents of their arrays, lists, dicts and sets, one level down; and
    the states of Python's and NumPy's random generators. Arrays stay the same objects. What is
    reported to Chainer's reporter meanwhile is dropped. It takes as much memory as the model.

    Not restored are other objects than the model, such as a second model that a loss function uses,
    and CuPy's random generators, whose state cannot be read.

    Args:
        model (~chainer.Link): The model.
    """
    holders = list(model.links())
    for param in model.params():
        holders += [param, param.node]
    saved = [_Saved(holder) for holder in holders]
    random_states = random.getstate(), numpy.random.get_state()
    try:
        with _reports_dropped():
            yield
    finally:
        for each in saved:
            each.restore()
        random.setstate(random_states[0])
        numpy.random.set_state(random_states[1])


class _Saved:
    """The class, the attributes and the contents of the attributes of an object."""

    def __init__(self, holder):
        self._holder = holder
        self._class = holder.__class__
        self._attributes = dict(holder.__dict__)
        values = list(self._attributes.values())
        if isinstance(holder, chainer.Parameter):
            values.append(holder.array)
        self._contents = [(value, value.copy()) for value in values if _has_contents(value)]

    def restore(self):
        self._holder.__class__ = self._class
        self._holder.__dict__.clear()
        self._holder.__dict__.update(self._attributes)
        for value, content in self._contents:
            if isinstance(value, list):
                value[:] = content
            elif isinstance(value, (dict, set)):
                value.clear()
                value.update(content)
            else:
                value[...] = content


def _has_contents(value):
    if isinstance(value, chainer.get_array_types()):
        return getattr(value.flags, 'writeable', True)
    return isinstance(value, (list, dict, set))


@contextlib.contextmanager
def _reports_dropped():
    """Keeps reported values from the observation of a trainer that may be running."""
    try:
        reporter = chainer.get_current_reporter()
    except IndexError:  # there is none
        yield
        return
    with reporter.scope({}):
        yield
