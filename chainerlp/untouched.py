"""Putting a model's state aside, and bringing it back exactly as it was."""

import contextlib
import random

import chainer
import numpy


@contextlib.contextmanager
def untouched(model):
    """Lets code run a model, convert it and fill its gradients, and undoes all of it.

    What comes back: the classes and attributes of all links; their parameters with gradients and
    loss scales, uninitialized ones uninitialized; persistent values such as the running statistics
    of batch normalization; what their arrays, lists, dicts and sets contain, one level down; the
    states of Python's and NumPy's random generators; and what was reported to Chainer's reporter.
    Arrays stay the same objects. It takes as much memory as the model.

    What does not: whatever is not in the model, such as another model that a loss function uses,
    and CuPy's random generators, whose state cannot be read.

    Args:
        model (~chainer.Link): The model.
    """
    holders = list(model.links())
    for param in model.params():
        holders += [param, param.node]
    kept = [_Kept(holder) for holder in holders]
    states = random.getstate(), numpy.random.get_state()
    try:
        with _unheard():
            yield
    finally:
        for holder in kept:
            holder.bring_back()
        random.setstate(states[0])
        numpy.random.set_state(states[1])


class _Kept:
    def __init__(self, holder):
        self._holder = holder
        self._class = holder.__class__
        self._attributes = dict(holder.__dict__)
        values = list(self._attributes.values())
        if isinstance(holder, chainer.Parameter):
            values.append(holder.array)
        self._contents = [(value, value.copy()) for value in values if _has_contents(value)]

    def bring_back(self):
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
def _unheard():
    """Keeps reported values from the observation of a trainer that may be running."""
    try:
        reporter = chainer.get_current_reporter()
    except IndexError:  # there is none
        yield
        return
    with reporter.scope({}):
        yield
