"""Types of arguments that many public functions take, for their annotations."""

from collections.abc import Sequence
from typing import Callable, Union

import chainer
import numpy
from chainer import training
from chainer.backends import cuda

Array = Union[numpy.ndarray, cuda.ndarray]
"""A NumPy or a CuPy array."""

Input = Union[chainer.Variable, Array]
"""What a function of Chainer's takes."""

Ints = Union[int, Sequence[int]]
"""An int for each spatial axis, or one for all."""

Scale = Union[float, Array]
"""α or a total scale: a float, or on a GPU a 0-d float32 array."""

Trigger = Union[Callable[[training.Trainer], bool], tuple[float, str]]
"""When an extension is called: a trigger, or a pair such as ``(100, 'iteration')``."""
