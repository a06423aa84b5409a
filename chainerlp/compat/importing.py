"""Imports Chainer where names that it looks up while it is being imported are gone."""

import importlib
import sys
import types
import warnings

from chainerlp.compat import (
    chainer_version,
    lending,
    numpy_namespace,
    pkg_resources_stand_in,
    system_info_stand_in,
)


def import_chainer():
    """Imports Chainer, and lends its modules what this stack lacks meanwhile.

    Raises:
        ImportError: Chainer is missing or of another version.

    """
    chainer_version.require()
    if 'chainer' not in sys.modules:
        _forget_failed_import()
    lending.install(_loans())
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

    if numpy_namespace.lacks('sctypes'):  # as_strided.py:10, while it is being imported
        loans['chainer.functions.array.as_strided'] = lending.Loan(
            numpy_names={'sctypes': numpy_namespace.SCTYPES}
        )
    return loans


def _loan_of_system_info(further_modules):
    # On macOS, _environment_check.py:29 looks it up as an attribute of numpy, after its import.
    distutils = types.SimpleNamespace(system_info=system_info_stand_in)
    return lending.Loan(
        modules={'numpy.distutils.system_info': system_info_stand_in, **further_modules},
        keeps={'numpy': numpy_namespace.NumpyWith(distutils=distutils)},
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
