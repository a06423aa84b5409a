"""Restoring a model after it was run, converted or changed, as if nothing had been."""

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
    and CuPy's random generators, whose state cannot be read (see :func:`drawing_alike`).

    Args:
        model (~chainer.Link): The model.
    """
    holders = list(model.links())
    for param in model.params():
        holders += [param, param.node]
    restorers = [_restorer_of(holder) for holder in holders]
    random_states = random.getstate(), numpy.random.get_state()
    try:
        with _reports_dropped():
            yield
    finally:
        for restore in restorers:
            restore()
        random.setstate(random_states[0])
        numpy.random.set_state(random_states[1])


@contextlib.contextmanager
def drawing_alike(device, seed=0):
    """Makes each use of it draw the same random numbers, and leaves all generators as they were.

    Args:
        device (~chainer.backend.Device): Where numbers may be drawn besides the CPU.
        seed (int): Another seed draws others.
    """
    states = random.getstate(), numpy.random.get_state()
    on_device = device.xp.random if device.xp is not numpy else None
    with chainer.using_device(device):
        generator = None if on_device is None else on_device.get_random_state()
    random.seed(seed)
    numpy.random.seed(seed)
    try:
        with chainer.using_device(device):
            if on_device is not None:
                on_device.set_random_state(on_device.RandomState(seed))
            yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        if on_device is not None:
            with chainer.using_device(device):
                on_device.set_random_state(generator)


def loss_of(lossfun, batch):
    """Returns a loss; raises TypeError if it is no variable."""
    loss = lossfun(*batch)
    if not isinstance(loss, chainer.Variable):
        raise TypeError(f'lossfun must return a chainer.Variable, not {type(loss).__name__}')
    return loss


def _restorer_of(holder):
    """Returns what restores an object's class, its attributes and the contents of these."""
    kind, attributes = holder.__class__, dict(holder.__dict__)
    values = list(attributes.values())
    if isinstance(holder, chainer.Parameter):
        values.append(holder.array)
    contents = [(value, value.copy()) for value in values if _has_contents(value)]

    def restore():
        holder.__class__ = kind
        holder.__dict__.clear()
        holder.__dict__.update(attributes)
        for value, content in contents:
            if isinstance(value, (dict, set)):
                value.clear()
                value.update(content)
            elif isinstance(value, list):
                value[:] = content
            else:
                value[...] = content

    return restore


def _has_contents(value):
    if isinstance(value, chainer.get_array_types()):
        return getattr(value.flags, 'writeable', True)
    return isinstance(value, (list, dict, set))


def _reports_dropped():
    """Keeps reported values from the observation of a trainer that may be running."""
    try:
        return chainer.get_current_reporter().scope({})
    except IndexError:  # there is none
        return contextlib.nullcontext()
