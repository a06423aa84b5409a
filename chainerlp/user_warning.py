"""Warnings that name the user's own line as their place."""

import os
import pathlib
import traceback
import warnings

import chainer

_NOT_THE_USERS = tuple(
    str(pathlib.Path(file).parent) + os.sep for file in (__file__, chainer.__file__)
)


def user_warning(message):
    """Gives a RuntimeWarning whose place is the innermost line outside of this package and Chainer.

    Args:
        message (str): One line.
    """
    frames = reversed(traceback.extract_stack())
    for level, frame in enumerate(frames):
        if not frame.filename.startswith(_NOT_THE_USERS):
            warnings.warn(message, RuntimeWarning, stacklevel=level + 1)
            return
    warnings.warn(message, RuntimeWarning, stacklevel=2)
