"""Replaces functions and methods of Chainer, each of them once."""

import functools


def replace(owner, name, build):
    """Replaces a function by one that is built on it, unless that has been done.

    Args:
        owner: The class or module that it belongs to.
        name (str): Its name there.
        build: A function that takes what is there and returns what shall be.
    """
    original = getattr(owner, name)
    # The mark is on the function, and not here: it outlasts a second import of this module.
    if getattr(original, 'is_chainerlp_stand_in', False):
        return
    stand_in = functools.wraps(original)(build(original))
    stand_in.is_chainerlp_stand_in = True
    setattr(owner, name, stand_in)
