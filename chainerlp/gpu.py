"""Whether an array is on a GPU."""

from chainer.backends import cuda


def on_gpu(array):
    """Returns whether an array is CuPy's; NumPy's arrays and scalars and numbers are not."""
    return isinstance(array, cuda.ndarray)
