"""Imports Chainer where names that it looks up while it is being imported are gone."""

import contextlib
import importlib
import os
import sys
import types
import warnings

from chainerlp.compat import (
    chainer_version,
    chainermn_copies,
    lending,
    namespaces,
    pkg_resources_stand_in,
    system_info_stand_in,
)

import numpy


def import_chainer():
    """Imports Chainer, and lends its modules what this stack lacks meanwhile.

    Raises:
        ImportError: Chainer is missing or of another version.

    """
    chainer_version.require()
    if 'chainer' not in sys.modules:
        _forget_failed_import()
    lending.install(_loans())
    with _cudnn_off_by_default(), _silence_about_libraries():
        importlib.import_module('chainer')


def _loans():
    """Returns what has to be lent to which of the modules that may still be imported."""
    loans = {}
    has_pkg_resources = _importable('pkg_resources')
    if not has_pkg_resources:
        pkg_resources = {'pkg_resources': pkg_resources_stand_in}
        # testing/helper.py:6 and testing/doctest_helper.py:3 import it. Chainer does not import
        # these by itself, but chainer.gradient_check does, and users' tests do, at any later time.
        loans['chainer.testing.helper'] = lending.Loan(modules=pkg_resources)
        loans['chainer.testing.doctest_helper'] = lending.Loan(modules=pkg_resources)

    # _environment_check.py:6-7. Whoever lacks the first is not made to import the second, which
    # takes a quarter of a second, is deprecated, and is asked for one thing on macOS only.
    if 'chainer._environment_check' in sys.modules:
        pass
    elif not has_pkg_resources:
        loans['chainer._environment_check'] = _loan_of_system_info(pkg_resources)
    elif not _importable('numpy.distutils.system_info'):
        loans['chainer._environment_check'] = _loan_of_system_info({})

    if namespaces.numpy_lacks('sctypes'):  # as_strided.py:10, while it is being imported
        loans['chainer.functions.array.as_strided'] = lending.Loan(
            numpy_names={'sctypes': namespaces.SCTYPES}
        )

    if chainermn_copies.needed():
        loans[chainermn_copies.MODULE] = lending.Loan(mend=chainermn_copies.mend)
    return loans


@contextlib.contextmanager
def _cudnn_off_by_default():
    """Context manager in which Chainer is told not to use cuDNN, unless its user has said so.

    Chainer can use cuDNN 8 through CuPy 13, and none through CuPy 14, which has no module for it:
    without it, both compute in the same way. Chainer also warns of a cuDNN that is missing, unless
    it was told (``backends/cuda.py:125, 150``).
    """
    if 'CHAINER_CUDNN' in os.environ:
        yield
        return
    os.environ['CHAINER_CUDNN'] = '0'
    try:
        yield
    finally:
        os.environ.pop('CHAINER_CUDNN', None)


@contextlib.contextmanager
def _silence_about_libraries():
    """Context manager in which CuPy does not warn that NCCL or cuDNN is missing.

    Chainer looks for them whenever it is imported (``multiprocess_parallel_updater.py:15``,
    ``backends/cuda.py:128``), and few need them. Who does is told so by what needs them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', r'\s*(nccl|cudnn) library could not be', UserWarning)
        yield


def _loan_of_system_info(further_modules):
    # On macOS, _environment_check.py:29 looks it up as an attribute of numpy, after its import.
    distutils = types.SimpleNamespace(system_info=system_info_stand_in)
    return lending.Loan(
        modules={'numpy.distutils.system_info': system_info_stand_in, **further_modules},
        keeps={'numpy': namespaces.With(numpy, distutils=distutils)},
    )


def _importable(name):
    """Returns whether a module, which Chainer would import at once, can be imported.

    Both of those that are asked for warn that they are deprecated, Chainer's user can do nothing
    about it, and a warning that is turned into an error would make them look missing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            importlib.import_module(name)
        except Exception:  # an old pkg_resources on a new Python: AttributeError
            return False
    return True


def _forget_failed_import():
    """Removes what an earlier ``import chainer`` has left behind when it failed.

    Its submodules are still there, and refer to a ``chainer`` that is not.
    """
    for name in list(sys.modules):
        if name.startswith('chainer.'):
            del sys.modules[name]
