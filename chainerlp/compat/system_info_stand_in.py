"""As much of ``numpy.distutils.system_info`` as Chainer uses; NumPy for Python 3.12 dropped it."""


def get_info(name):
    """Knows of no library.

    On macOS, Chainer asks for ``'blas_opt'`` in order to warn of a NumPy that was built with the
    Accelerate of 2015 (``chainer/_environment_check.py:29``).
    """
    return {}
