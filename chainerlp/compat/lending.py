"""Lends modules and names to single modules of Chainer, for as long as these are being executed.

A stand-in that stayed in ``sys.modules``, or in NumPy, would tell other packages that something is
there which is not.
"""

import contextlib
import dataclasses
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Mapping
from typing import Callable, Optional

import numpy


@dataclasses.dataclass(frozen=True)
class Loan:
    """What one module of Chainer is lent.

    Attributes:
        modules (dict): Modules, by the names under which they are imported.
        numpy_names (dict): Attributes of NumPy.
        keeps (dict): What the module has in its own namespace afterwards, for its run time.
        mend: Is called with the module after that; ``None`` for nothing.
    """

    modules: Mapping = dataclasses.field(default_factory=dict)
    numpy_names: Mapping = dataclasses.field(default_factory=dict)
    keeps: Mapping = dataclasses.field(default_factory=dict)
    mend: Optional[Callable] = None

    @contextlib.contextmanager
    def lent(self):
        """Context manager in which everything is there, and after which all is as before."""
        with _filled(sys.modules, self.modules), _filled(vars(numpy), self.numpy_names):
            yield


@contextlib.contextmanager
def _filled(names, lent):
    # What somebody else has put there in the meantime is used, and stays. A module that is None is
    # one that may not be imported.
    lent = {name: value for name, value in lent.items() if names.get(name) is None}
    before = {name: names[name] for name in lent if name in names}
    names.update(lent)
    try:
        yield
    finally:
        for name in lent:
            del names[name]
        names.update(before)


class Lender(importlib.abc.MetaPathFinder):
    """Finds the modules that are to be lent something, and no others.

    Args:
        loans (dict): A :class:`Loan` for each module, by the module's full name.
    """

    def __init__(self, loans):
        self._loans = loans

    def find_spec(self, fullname, path=None, target=None):
        """Returns the ordinary spec of a module, with a loader that lends; else ``None``."""
        if fullname not in self._loans:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            spec.loader = _LendingLoader(spec.loader, self._loans[fullname])
        return spec


class _LendingLoader(importlib.abc.Loader):
    def __init__(self, loader, loan):
        self._loader = loader
        self._loan = loan

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        # Tracebacks, inspect and the like ask a module's loader for its source.
        module.__loader__ = module.__spec__.loader = self._loader
        with self._loan.lent():
            self._loader.exec_module(module)
        vars(module).update(self._loan.keeps)
        if self._loan.mend is not None:
            self._loan.mend(module)


def install(loans):
    """Makes a :class:`Lender` the first to look for modules, in place of an earlier one.

    Args:
        loans (dict): See :class:`Lender`. With nothing to lend, none is installed.
    """
    # By name, since reloading this module makes another class of it.
    sys.meta_path[:] = [
        finder
        for finder in sys.meta_path
        if (type(finder).__module__, type(finder).__name__) != (__name__, Lender.__name__)
    ]
    if loans:
        sys.meta_path.insert(0, Lender(types.MappingProxyType(loans)))
