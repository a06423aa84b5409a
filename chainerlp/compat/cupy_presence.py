"""Whether CuPy is there, which one, and why it cannot be used."""

import importlib
import importlib.util


def major():
    """Returns the major version of the CuPy that can be imported; 0 if there is none."""
    try:
        return int(importlib.import_module('cupy').__version__.split('.')[0])
    except Exception:  # as Chainer has it, backends/cuda.py:77: a library that is missing or broken
        return 0


def why_no_cupy():
    """Says why no array can be computed on a GPU.

    Chainer takes whatever goes wrong with CuPy for its absence (``chainer.backends.cuda.available``
    is ``False``), and goes on.

    Returns:
        str: The reason in one line; ``None`` if there is a GPU, and CuPy can use it.
    """
    from chainer.backends import cuda

    if importlib.util.find_spec('cupy') is None:
        return 'CuPy is not installed (pip install cupy-cuda12x, or cupy-cuda13x, as the driver is)'
    if not cuda.available:
        return f'CuPy cannot be used: {_in_one_line(cuda._resolution_error)}'
    try:
        if cuda.cupy.cuda.runtime.getDeviceCount() == 0:
            return 'there is no GPU'
        cuda.cupy.cuda.nvrtc.getVersion()  # every kernel is compiled by it
    except Exception as error:  # CUDA's, or the loader's
        return f'CuPy finds no GPU or not all of CUDA: {_in_one_line(error)}'
    return None


def _in_one_line(error):
    # CuPy wraps the loader's message in a banner of its own, and adds lists of folders to it.
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
